# One p5.48xlarge on demand, started by Ray's autoscaler when a job asks for it, gone ten minutes after the last replica.
# No schedule. From here to a finished job: docs/clusters/aws.md.

module "grok_batch" {
  source = "../.."

  name               = var.name
  availability_zones = var.availability_zones
  release_version    = var.release_version
  release_sha256     = var.release_sha256

  worker_instance_type = "p5.48xlarge"
  max_workers          = 1
  purchase             = "on-demand"

  force_destroy_buckets = var.force_destroy_buckets
  alarm_emails          = var.alarm_emails
  monthly_budget_usd    = var.monthly_budget_usd
  worker_hours_per_day  = 8
  worker_usd_per_hour   = var.worker_usd_per_hour
}
