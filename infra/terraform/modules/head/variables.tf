variable "name" {
  description = "Prefix of all names; the Ray cluster's name."
  type        = string
}

variable "instance_type" {
  description = "Of the head; it holds the driver, no model."
  type        = string
}

variable "ami_id" {
  description = "Amazon Linux 2023, x86_64."
  type        = string
}

variable "subnet_id" {
  description = "A private subnet."
  type        = string
}

variable "security_group_id" {
  description = "Of the head."
  type        = string
}

variable "instance_profile_name" {
  description = "Of the head."
  type        = string
}

variable "root_volume_gib" {
  description = "Size of the encrypted disk: packages, Ray's logs, spilled objects."
  type        = number
}

variable "user_data" {
  description = "First boot; another one replaces the head."
  type        = string
}

variable "head_ip_parameter" {
  description = "Name of the SSM parameter that tells workers where the head is."
  type        = string
}
