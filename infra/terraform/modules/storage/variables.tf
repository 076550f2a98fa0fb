variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "bucket_prefix" {
  description = "Prefix of bucket names, which are global."
  type        = string
}

variable "noncurrent_days" {
  description = "Days for which overwritten and deleted objects can be brought back."
  type        = number
}

variable "runs_expire_days" {
  description = "Days after which objects of the runs bucket are deleted; null keeps them."
  type        = number
  default     = null
}

variable "force_destroy" {
  description = "Whether terraform destroy may delete buckets that hold objects."
  type        = bool
}
