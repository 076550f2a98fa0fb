variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "kms_key_arn" {
  description = "Encrypts logs and notifications."
  type        = string
}

variable "log_retention_days" {
  description = "For how long logs are kept."
  type        = number
}

variable "metric_namespace" {
  description = "Where nodes write their metrics."
  type        = string
}

variable "alarm_emails" {
  description = "Who is told; each address has to confirm a mail once."
  type        = list(string)
}

variable "monthly_budget_usd" {
  description = "Of the whole account; null makes no budget."
  type        = number
  default     = null
}

variable "worker_hours_per_day" {
  description = "More worker-hours than this in a day raise an alarm, hours before a bill shows it."
  type        = number
}

variable "idle_alarm_minutes" {
  description = "Workers that nobody has used for so long raise an alarm: they should have left by themselves."
  type        = number
}

variable "nightly" {
  description = "Whether a night without success raises an alarm."
  type        = bool
}

variable "asg_name" {
  description = "Auto Scaling group of the workers; null where Ray scales."
  type        = string
  default     = null
}

variable "breaker_boots" {
  description = "So many failed boots raise an alarm and stop further ones."
  type        = number
}

variable "stop_workers_arns" {
  description = "What the alarm boots-failing calls beside the topic: the policy that lowers the group to 0."
  type        = list(string)
  default     = []
}
