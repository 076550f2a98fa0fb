# -- where ---------------------------------------------------------------------------------------------------------------------

variable "name" {
  description = "Name of the cluster: prefix of everything made here, and Ray's cluster name."
  type        = string
  default     = "grok-batch"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name)) && !strcontains(var.name, "--")
    error_message = "name: expected 3 to 20 lowercase letters, digits and single hyphens, beginning with a letter, because bucket names begin with it. Choose another, such as grok-batch."
  }
}

variable "availability_zones" {
  description = "Zones with a private subnet each; head and endpoints use the first; workers start in any of them: take those that have the GPUs."
  type        = list(string)

  validation {
    condition     = length(var.availability_zones) >= 1 && length(var.availability_zones) <= 6 && length(distinct(var.availability_zones)) == length(var.availability_zones)
    error_message = "availability_zones: expected one to six different zones. List those of the region that offer the instance type: aws ec2 describe-instance-type-offerings --location-type availability-zone --filters Name=instance-type,Values=p5.48xlarge"
  }

  validation {
    condition     = alltrue([for zone in var.availability_zones : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$", zone))])
    error_message = "availability_zones: expected names such as us-east-1a, not ids such as use1-az1."
  }
}

variable "vpc_cidr" {
  description = "Addresses of the new VPC."
  type        = string
  default     = "10.42.0.0/16"

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 20, false)
    error_message = "vpc_cidr: expected a block from /16 to /20, such as 10.42.0.0/16; smaller ones leave subnets without room."
  }
}

variable "nat_gateway" {
  description = "Whether nodes reach the internet. They need not: the release brings its packages, Amazon's come through the S3 endpoint."
  type        = bool
  default     = false
}

variable "interface_endpoints" {
  description = "AWS services that nodes reach without the internet; a fixed price per hour each. Add ecr.api and ecr.dkr for images of your own."
  type        = set(string)
  default     = ["ssm", "ssmmessages", "ec2messages", "logs", "monitoring", "ec2", "autoscaling"]

  validation {
    condition     = var.nat_gateway || length(setsubtract(["ssm", "ssmmessages", "ec2messages", "logs", "monitoring"], var.interface_endpoints)) == 0
    error_message = "interface_endpoints: without nat_gateway, nodes need at least ssm, ssmmessages, ec2messages, logs and monitoring: without them nobody reaches the head. Add them, or set nat_gateway = true."
  }

  validation {
    condition     = var.nat_gateway || contains(var.interface_endpoints, "ec2") && (var.scaling == "ray" || contains(var.interface_endpoints, "autoscaling"))
    error_message = "interface_endpoints: without nat_gateway, the head needs the endpoint ec2 to see workers, and scaling = \"asg\" the endpoint autoscaling as well. Add them."
  }
}

# -- what runs -----------------------------------------------------------------------------------------------------------------

variable "release_version" {
  description = "Which release nodes install: what infra/terraform/release.sh printed."
  type        = string

  validation {
    condition     = can(regex("^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$", var.release_version))
    error_message = "release_version: expected what infra/terraform/release.sh printed, letters, digits, dots and hyphens."
  }
}

variable "release_sha256" {
  description = "SHA-256 of the release: what infra/terraform/release.sh printed. Nodes install nothing else."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.release_sha256))
    error_message = "release_sha256: expected 64 hexadecimal digits, as infra/terraform/release.sh prints them."
  }
}

variable "weights_prefix" {
  description = "Folder of the weights bucket that holds the checkpoint; every worker copies it to its NVMe disks at boot."
  type        = string
  default     = "grok-1"

  validation {
    condition     = can(regex("^[0-9A-Za-z._-]+(/[0-9A-Za-z._-]+)*$", var.weights_prefix))
    error_message = "weights_prefix: expected a path such as grok-1/converted, without a slash at either end."
  }
}

variable "weights_check" {
  description = "What a worker checks of its copy: quick (names, sizes, structure: seconds) or deep (every byte: minutes)."
  type        = string
  default     = "quick"

  validation {
    condition     = contains(["quick", "deep"], var.weights_check)
    error_message = "weights_check: expected quick or deep."
  }
}

# -- head ----------------------------------------------------------------------------------------------------------------------

variable "head_instance_type" {
  description = "Of the Ray head, where drivers run: x86_64, 4 CPUs and 16 GiB at least."
  type        = string
  default     = "m7i.2xlarge"

  validation {
    condition     = can(regex("^[a-z0-9-]+\\.[0-9a-z]+$", var.head_instance_type)) && !can(regex("^[a-z]+[0-9]+g[a-z]*\\.|^a1\\.", var.head_instance_type)) && !can(regex("\\.(nano|micro|small|medium|large)$", var.head_instance_type))
    error_message = "head_instance_type: expected an x86_64 type of xlarge or more (the locked packages and the workers are x86_64; a driver needs memory), such as m7i.2xlarge."
  }
}

variable "head_ami_id" {
  description = "Amazon Linux 2023, x86_64; null takes Amazon's latest when the head is made."
  type        = string
  default     = null

  validation {
    condition     = var.head_ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.head_ami_id))
    error_message = "head_ami_id: expected an id such as ami-0123456789abcdef0, or null."
  }
}

variable "head_volume_gib" {
  description = "Disk of the head."
  type        = number
  default     = 200

  validation {
    condition     = var.head_volume_gib >= 60 && floor(var.head_volume_gib) == var.head_volume_gib
    error_message = "head_volume_gib: expected a whole number of at least 60: packages take some 12, Ray's logs and spilled objects the rest."
  }
}

# -- workers -------------------------------------------------------------------------------------------------------------------

variable "worker_instance_type" {
  description = "8-GPU type. Grok-1 in int8 takes 40 GB of each GPU: all but p4d (8 x 40 GB), which is for smaller models."
  type        = string
  default     = "p5.48xlarge"

  validation {
    condition     = contains(["p4d.24xlarge", "p4de.24xlarge", "p5.48xlarge", "p5e.48xlarge", "p5en.48xlarge"], var.worker_instance_type)
    error_message = "worker_instance_type: expected p4d.24xlarge, p4de.24xlarge, p5.48xlarge, p5e.48xlarge or p5en.48xlarge; another 8-GPU type needs its facts in modules/gpu_workers/main.tf."
  }
}

variable "worker_ami_id" {
  description = "Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023); null takes the latest when the plan is made."
  type        = string
  default     = null

  validation {
    condition     = var.worker_ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.worker_ami_id))
    error_message = "worker_ami_id: expected an id such as ami-0123456789abcdef0, or null."
  }
}

variable "worker_volume_gib" {
  description = "Root disk of a worker; weights are on its NVMe disks."
  type        = number
  default     = 150

  validation {
    condition     = var.worker_volume_gib >= 100 && floor(var.worker_volume_gib) == var.worker_volume_gib
    error_message = "worker_volume_gib: expected a whole number of at least 100: the Deep Learning AMI alone takes 75."
  }
}

variable "max_workers" {
  description = "Most workers at a time. The account's quota of vCPUs for P instances has to allow it: 192 each, p4d and p4de 96."
  type        = number
  default     = 1

  validation {
    condition     = var.max_workers >= 1 && var.max_workers <= 64 && floor(var.max_workers) == var.max_workers
    error_message = "max_workers: expected a whole number from 1 to 64. Start with 1: one worker holds one Grok-1."
  }
}

variable "scaling" {
  description = "Who starts and ends workers: ray (its autoscaler, on demand of jobs, from zero) or asg (an Auto Scaling group that the nightly job, or a person, raises from zero and lowers)."
  type        = string
  default     = "ray"

  validation {
    condition     = contains(["ray", "asg"], var.scaling)
    error_message = "scaling: expected ray or asg. ray needs nothing but jobs; asg is for capacity blocks and for spot in several zones."
  }
}

variable "idle_minutes" {
  description = "For how long a worker may hold no replica before it ends."
  type        = number
  default     = 10

  validation {
    condition     = var.idle_minutes >= 5 && var.idle_minutes <= 240 && floor(var.idle_minutes) == var.idle_minutes
    error_message = "idle_minutes: expected a whole number from 5 to 240; below 5, a worker may leave between two jobs of one script."
  }
}

variable "purchase" {
  description = "on-demand, spot, reservation (an On-Demand Capacity Reservation) or capacity-block (Capacity Blocks for ML)."
  type        = string
  default     = "on-demand"

  validation {
    condition     = contains(["on-demand", "spot", "reservation", "capacity-block"], var.purchase)
    error_message = "purchase: expected on-demand, spot, reservation or capacity-block."
  }
}

variable "capacity_reservation_id" {
  description = "Of the reservation or the capacity block."
  type        = string
  default     = null

  validation {
    condition     = contains(["reservation", "capacity-block"], var.purchase) == (var.capacity_reservation_id != null)
    error_message = "capacity_reservation_id: needed with purchase = \"reservation\" and \"capacity-block\", and only there. aws ec2 describe-capacity-reservations lists yours."
  }

  validation {
    condition     = var.capacity_reservation_id == null || can(regex("^cr-[0-9a-f]{8,17}$", var.capacity_reservation_id))
    error_message = "capacity_reservation_id: expected an id such as cr-0123456789abcdef0."
  }
}

variable "capacity_block" {
  description = "Start and end of the capacity block, as `aws ec2 describe-capacity-reservations` prints them. The group is raised at the start and lowered 45 minutes before the end; AWS ends machines 30 minutes before it."
  type = object({
    start = string
    end   = string
  })
  default = null

  validation {
    condition     = (var.purchase == "capacity-block") == (var.capacity_block != null)
    error_message = "capacity_block: needed with purchase = \"capacity-block\", and only there. aws ec2 describe-capacity-reservations shows StartDate and EndDate."
  }

  validation {
    condition     = var.capacity_block == null || can(timeadd(var.capacity_block.start, "0s")) && can(timeadd(var.capacity_block.end, "0s"))
    error_message = "capacity_block: expected times such as 2026-12-01T11:30:00Z."
  }

  validation {
    condition     = var.capacity_block == null || try(timecmp(timeadd(var.capacity_block.start, "2h"), var.capacity_block.end) <= 0, true)
    error_message = "capacity_block: expected an end at least two hours after the start: a boot and the 45 minutes before the end are part of it."
  }

  validation {
    condition     = var.capacity_block == null || var.scaling == "asg"
    error_message = "capacity_block: needs scaling = \"asg\", whose group starts and ends the machines at these times. Ray's autoscaler would start them before and after."
  }

  validation {
    condition     = var.capacity_block == null || length(var.availability_zones) == 1
    error_message = "capacity_block: a block is in one zone. Name this zone alone in availability_zones."
  }
}

variable "existing_placement_group" {
  description = "Placement group in which the reservation was made; null if it was made in none."
  type        = string
  default     = null

  validation {
    condition     = var.existing_placement_group == null || var.purchase == "reservation"
    error_message = "existing_placement_group: used with purchase = \"reservation\" only. Leave it out, because it makes other capacity harder to find."
  }
}

# -- data ----------------------------------------------------------------------------------------------------------------------

variable "noncurrent_days" {
  description = "Days for which overwritten and deleted objects can be brought back."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days: expected a whole number of at least 1."
  }
}

variable "runs_expire_days" {
  description = "Days after which what lies below runs/ in the runs bucket is deleted; null keeps it."
  type        = number
  default     = null

  validation {
    condition     = var.runs_expire_days == null || try(var.runs_expire_days >= 7 && floor(var.runs_expire_days) == var.runs_expire_days, false)
    error_message = "runs_expire_days: expected a whole number of at least 7, or null to keep runs: an interrupted run may wait for a few nights."
  }
}

variable "force_destroy_buckets" {
  description = "Whether terraform destroy deletes buckets that are not empty. Leave it false until the day of teardown."
  type        = bool
  default     = false
}

# -- nightly -------------------------------------------------------------------------------------------------------------------

variable "nightly" {
  description = "The nightly job; null for none. {night} in the command stands for the date, so that a second try continues its run folder."
  type = object({
    schedule       = string
    timezone       = optional(string, "UTC")
    enabled        = optional(bool, true)
    command        = list(string)
    workers        = optional(number, 1)
    attempts       = optional(number, 5)
    deadline_hours = optional(number, 12)
  })
  default = null

  validation {
    condition     = var.nightly == null || can(regex("^(cron\\(\\S+ \\S+ (\\S+ \\S+ \\?|\\? \\S+ [^?\\s]+) \\S+\\)|rate\\([1-9][0-9]* (minute|hour|day)s?\\)|at\\(\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\))$", var.nightly.schedule))
    error_message = "nightly.schedule: expected an expression of EventBridge Scheduler: cron with six fields, of which day of month or day of week is ?, such as cron(0 2 * * ? *); rate(1 day); or at(2026-12-01T02:00:00)."
  }

  validation {
    condition     = try(length(var.nightly.command) >= 2, var.nightly == null)
    error_message = "nightly.command: expected the words of a command, such as [\"python\", \"jobs/evaluate.py\", \"-C\", \"jobs/configs/nightly.yaml\", …]."
  }

  validation {
    condition     = var.nightly == null || anytrue([for word in try(var.nightly.command, []) : strcontains(word, "{night}")])
    error_message = "nightly.command: expected {night} in it, at least in the output folder: without it the second night would continue the first one's run and do nothing."
  }

  validation {
    condition     = var.nightly == null || try(var.nightly.workers >= 1 && var.nightly.workers <= var.max_workers, false)
    error_message = "nightly.workers: expected 1 to max_workers. Raise max_workers, or ask for fewer."
  }

  validation {
    condition     = var.nightly == null || try(var.nightly.attempts >= 1 && var.nightly.attempts <= 20 && var.nightly.deadline_hours >= 1 && var.nightly.deadline_hours <= 23, false)
    error_message = "nightly: expected attempts from 1 to 20 and deadline_hours from 1 to 23: the next night must find the machines free."
  }
}

# -- money and alarms ----------------------------------------------------------------------------------------------------------

variable "alarm_emails" {
  description = "Who is told about spend, idle workers and failed nights."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alarm_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))])
    error_message = "alarm_emails: expected mail addresses."
  }
}

variable "monthly_budget_usd" {
  description = "Budget of the whole account, told at 50, 80 and 100 % and when the forecast passes it; null for none."
  type        = number
  default     = null

  validation {
    condition     = var.monthly_budget_usd == null || try(var.monthly_budget_usd > 0, false)
    error_message = "monthly_budget_usd: expected more than 0, or null."
  }

  validation {
    condition     = var.monthly_budget_usd == null || length(var.alarm_emails) > 0
    error_message = "monthly_budget_usd: nobody would be told. Name somebody in alarm_emails."
  }
}

variable "worker_hours_per_day" {
  description = "More worker-hours in a day raise an alarm."
  type        = number
  default     = 12

  validation {
    condition     = var.worker_hours_per_day > 0
    error_message = "worker_hours_per_day: expected more than 0."
  }
}

variable "worker_usd_per_hour" {
  description = "What a worker costs you, for the cost in reports and outputs. No default: prices differ by region, day and contract; docs/clusters/aws.md has a table to check."
  type        = number
  default     = null

  validation {
    condition     = var.worker_usd_per_hour == null || try(var.worker_usd_per_hour > 0, false)
    error_message = "worker_usd_per_hour: expected more than 0, or null."
  }
}

variable "log_retention_days" {
  description = "For how long logs are kept."
  type        = number
  default     = 90

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days: expected a number that CloudWatch knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, …"
  }
}
