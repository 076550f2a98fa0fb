variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "bucket_arns" {
  description = "ARNs of the buckets by kind: weights, data, runs."
  type        = map(string)
}

variable "kms_key_arn" {
  description = "Key of buckets, logs and token."
  type        = string
}

variable "token_parameter" {
  description = "Name of the SSM parameter with Ray's token."
  type        = string
}

variable "head_ip_parameter" {
  description = "Name of the SSM parameter with the head's address."
  type        = string
}

variable "metric_namespace" {
  description = "The only CloudWatch namespace that nodes may write to."
  type        = string
}

variable "scaling" {
  description = "Who starts and ends workers: ray or asg."
  type        = string
}

variable "asg_name" {
  description = "Of the workers, where scaling is asg."
  type        = string
}

variable "launch_template_arn" {
  description = "Of the workers: the head starts instances of no other, where scaling is ray."
  type        = string
}

variable "worker_instance_type" {
  description = "The head starts instances of no other type, where scaling is ray."
  type        = string
}

variable "worker_security_group_id" {
  description = "The head starts instances in no other group, where scaling is ray."
  type        = string
}

variable "subnet_ids" {
  description = "The head starts instances in no other subnets, where scaling is ray."
  type        = list(string)
}

variable "capacity_reservation_ids" {
  description = "Reservations that the head may start instances in, where scaling is ray."
  type        = list(string)
}
