# Where logs go, and what somebody is told: spend, idle workers, workers that gave up, a lost night, a broken head.

data "aws_caller_identity" "current" {}

locals {
  groups     = toset(["head", "worker", "jobs", "vpc-flow"])
  dimensions = { Cluster = var.name }

  # metric alarms on what nodes/watch.py, leave.sh and nightly.py write
  alarms = merge(
    {
      worker-hours = {
        description = "More than ${var.worker_hours_per_day} worker-hours in a day. See docs/clusters/aws.md, Costs."
        metric      = "WorkerMinutes", statistic = "Sum", period = 86400, periods = 1
        comparison  = "GreaterThanThreshold", threshold = 60 * var.worker_hours_per_day, missing = "notBreaching"
      }
      idle-workers = {
        description = "Workers run and nobody uses them; they should have left by themselves. See docs/clusters/aws.md, Failure drills."
        metric      = "BusyGpus", statistic = "Maximum", period = 300, periods = ceil(var.idle_alarm_minutes / 5)
        comparison  = "LessThanOrEqualToThreshold", threshold = 0, missing = "notBreaching" # no workers, no data
      }
      worker-gave-up = {
        description = "A worker could not be set up and ended itself; its boot.log is in the log group /${var.name}/worker."
        metric      = "WorkerGaveUp", statistic = "Sum", period = 300, periods = 1
        comparison  = "GreaterThanThreshold", threshold = 0, missing = "notBreaching"
      }
    },
    var.nightly ? {
      nightly-failed = {
        description = "No nightly job has succeeded for a day; nightly.log is in the log group /${var.name}/head."
        metric      = "NightlySucceeded", statistic = "Sum", period = 86400, periods = 1
        comparison  = "LessThanThreshold", threshold = 1, missing = "breaching" # a night that never began
      }
    } : {},
  )
}

resource "aws_cloudwatch_log_group" "this" {
  # checkov:skip=CKV_AWS_338:log_retention_days is the user's to choose; results are kept in S3, these are logs.
  for_each = local.groups

  name              = "/${var.name}/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_policy" "alarms" {
  arn = aws_sns_topic.alarms.arn

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AlarmsAndBudgetsOfThisAccount"
      Effect    = "Allow"
      Principal = { Service = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"] }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.alarms.arn
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alarm_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_metric_alarm" "nodes" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = var.metric_namespace
  metric_name         = each.value.metric
  dimensions          = local.dimensions
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = each.value.periods
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  treat_missing_data  = each.value.missing
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

resource "aws_budgets_budget" "monthly" {
  count = var.monthly_budget_usd == null ? 0 : 1

  name         = "${var.name}-monthly"
  budget_type  = "COST"
  limit_amount = tostring(var.monthly_budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  dynamic "notification" {
    for_each = [{ kind = "ACTUAL", percent = 50 }, { kind = "ACTUAL", percent = 80 }, { kind = "ACTUAL", percent = 100 }, { kind = "FORECASTED", percent = 100 }]

    content {
      notification_type         = notification.value.kind
      threshold                 = notification.value.percent
      threshold_type            = "PERCENTAGE"
      comparison_operator       = "GREATER_THAN"
      subscriber_sns_topic_arns = [aws_sns_topic.alarms.arn]
    }
  }

  depends_on = [aws_sns_topic_policy.alarms]
}
