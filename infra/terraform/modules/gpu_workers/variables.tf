variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "instance_type" {
  description = "An 8-GPU type that this module knows."
  type        = string
}

variable "ami_id" {
  description = "Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023), or one like it."
  type        = string
}

variable "subnet_ids" {
  description = "Where workers may start."
  type        = list(string)
}

variable "security_group_id" {
  description = "Of the workers."
  type        = string
}

variable "instance_profile_arn" {
  description = "Of the workers."
  type        = string
}

variable "root_volume_gib" {
  description = "Size of the encrypted root disk."
  type        = number
}

variable "user_data" {
  description = "First boot."
  type        = string
}

variable "existing_placement_group" {
  description = "Name of the placement group in which a reservation was made; null for none."
  type        = string
  default     = null
}

variable "purchase" {
  description = "on-demand, spot, reservation or capacity-block."
  type        = string
}

variable "capacity_reservation_id" {
  description = "Of the reservation or capacity block."
  type        = string
  default     = null
}

variable "capacity_block" {
  description = "Start and end of the block: the group is raised and lowered then; null without one."
  type = object({
    start = string
    end   = string
  })
  default = null
}

variable "scaling" {
  description = "asg makes an Auto Scaling group; ray leaves starting and ending to Ray's autoscaler."
  type        = string
}

variable "max_workers" {
  description = "Most workers at a time."
  type        = number
}

variable "asg_name" {
  description = "Of the Auto Scaling group."
  type        = string
}

variable "lifecycle_hook" {
  description = "Name of the hook that holds an instance back until it is drained."
  type        = string
}

variable "lifecycle_hook_s" {
  description = "For how long at most."
  type        = number
}
