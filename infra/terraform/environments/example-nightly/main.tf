# A nightly evaluation on two p5en.48xlarge spot instances in any of the zones. The schedule starts it, the Auto Scaling group goes
# from zero to two and back, an interruption drains the node and the group looks for another one.

module "grok_batch" {
  source = "../.."

  name               = var.name
  availability_zones = var.availability_zones
  release_version    = var.release_version
  release_sha256     = var.release_sha256

  worker_instance_type = "p5en.48xlarge"
  max_workers          = 2
  scaling              = "asg"
  purchase             = "spot"

  nightly = {
    schedule = "cron(0 2 * * ? *)"
    timezone = "UTC"
    workers  = 2
    attempts = 5
    command = [
      "python", "jobs/evaluate.py", "-C", "jobs/configs/nightly.yaml",
      "--data", "s3://${local.buckets}-data/eval",
      "--checkpoint", "s3://${local.buckets}-weights/grok-1",
      "--tokenizer", "s3://${local.buckets}-weights/tokenizer.model",
      "--history", "s3://${local.buckets}-runs/history",
      "--replicas", "1:2", "--device", "gpu", # when the job starts there may be no machine yet
      "--name", "{night}",
      "--output", "s3://${local.buckets}-runs/runs/nightly/{night}",
    ]
  }

  runs_expire_days      = 365
  force_destroy_buckets = var.force_destroy_buckets
  alarm_emails          = var.alarm_emails
  monthly_budget_usd    = var.monthly_budget_usd
  worker_hours_per_day  = 12
  worker_usd_per_hour   = var.worker_usd_per_hour
}

data "aws_caller_identity" "current" {}

locals {
  # The module names its buckets so; its outputs would be a circle here.
  buckets = "${var.name}-${data.aws_caller_identity.current.account_id}-${var.region}"
}
