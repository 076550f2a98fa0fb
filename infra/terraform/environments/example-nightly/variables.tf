variable "name" {
  description = "Name of the cluster."
  type        = string
  default     = "grok-batch"
}

variable "region" {
  description = "Region with the GPUs."
  type        = string
  default     = "us-east-1"
}

variable "availability_zones" {
  description = "Zones of the region that offer the worker's type."
  type        = list(string)
}

variable "release_version" {
  description = "What infra/terraform/release.sh printed."
  type        = string
}

variable "release_sha256" {
  description = "What infra/terraform/release.sh printed."
  type        = string
}

variable "alarm_emails" {
  description = "Who is told about spend."
  type        = list(string)
}

variable "monthly_budget_usd" {
  description = "Budget of the account."
  type        = number
}

variable "worker_usd_per_hour" {
  description = "What a worker costs you; null when you do not know yet."
  type        = number
  default     = null
}

variable "force_destroy_buckets" {
  description = "true on the day of teardown: terraform destroy then deletes weights, prompts and results too."
  type        = bool
  default     = false
}
