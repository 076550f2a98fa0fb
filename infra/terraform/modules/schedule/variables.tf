variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "head_instance_id" {
  description = "Where the nightly job is started."
  type        = string
}

variable "schedule" {
  description = "cron(...) or rate(...), as EventBridge Scheduler writes it."
  type        = string
}

variable "timezone" {
  description = "Of the schedule."
  type        = string
}

variable "enabled" {
  description = "Whether the schedule starts anything."
  type        = bool
}

variable "configuration" {
  description = "What node/nightly.py reads."
  type = object({
    command        = list(string)
    workers        = number
    attempts       = number
    deadline_hours = number
  })
}

variable "kms_key_arn" {
  description = "Encrypts the schedule."
  type        = string
}
