# Where logs go, and what somebody is told: spend, idle workers, boots that fail, workers that gave up or do not start, faulty GPUs,
# a lost night, a broken head.

data "aws_caller_identity" "current" {}

locals {
  groups     = toset(["head", "worker", "jobs", "vpc-flow"])
  dimensions = { Cluster = var.name }

  # metric alarms on what node/watch.py, leave.sh, fleet.py and nightly.py write
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
        description = "A worker lost Ray for good and ended itself; its ray.log is in the log group /${var.name}/worker."
        metric      = "WorkerGaveUp", statistic = "Sum", period = 300, periods = 1
        comparison  = "GreaterThanThreshold", threshold = 0, missing = "notBreaching"
      }
      boots-failing = {
        description = "${var.breaker_boots} boots of workers failed within an hour, and workers cost as much while they fail. Reasons: aws s3 ls of the output boots_url, and boot.log in /${var.name}/worker. See docs/clusters/runbook.md, Boots that fail."
        metric      = "BootFailed", statistic = "Sum", period = 3600, periods = 1
        comparison  = "GreaterThanOrEqualToThreshold", threshold = var.breaker_boots, missing = "notBreaching"
      }
      breaker-open = {
        description = "${var.breaker_boots} boots in a row failed, so no further worker is started. See docs/clusters/runbook.md, Boots that fail."
        metric      = "BreakerOpen", statistic = "Maximum", period = 300, periods = 1
        comparison  = "GreaterThanThreshold", threshold = 0, missing = "notBreaching"
      }
      gpu-failed = {
        description = "The GPUs of a worker had faults and it ended itself; gpu_health in watch.log of /${var.name}/worker names them."
        metric      = "GpuFailed", statistic = "Sum", period = 300, periods = 1
        comparison  = "GreaterThanThreshold", threshold = 0, missing = "notBreaching"
      }
      head-broken = {
        description = "The head has not answered for 15 minutes, or could not be set up: boot.log, ray.log and fleet.log in /${var.name}/head. See docs/clusters/runbook.md. Disable it while the head is stopped on purpose."
        metric      = "HeadUp", statistic = "Minimum", period = 300, periods = 3
        comparison  = "LessThanThreshold", threshold = 1, missing = "breaching" # a head that is gone writes nothing
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
  alarm_actions       = concat([aws_sns_topic.alarms.arn], each.key == "boots-failing" ? var.stop_workers_arns : [])
}

# What only a log says: errors of GPUs, and zones without capacity.
locals {
  log_alarms = {
    gpu-xid = {
      description = "The NVIDIA driver of a worker reports an error (Xid): kernel.log in /${var.name}/worker."
      group       = "worker", pattern = "\"NVRM: Xid\"", periods = 1
    }
    workers-not-launched = {
      description = "Ray could start no worker in any zone: the autoscaler's log in /${var.name}/head says why, mostly InsufficientInstanceCapacity. The job waits. Name more zones, another type or a reservation. See docs/clusters/runbook.md, No capacity."
      group       = "head", pattern = "?\"Failed to launch\" ?InsufficientInstanceCapacity ?VcpuLimitExceeded ?UnauthorizedOperation", periods = 2
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  for_each = local.log_alarms

  name           = "${var.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.this[each.value.group].name
  pattern        = each.value.pattern

  metric_transformation {
    namespace = "${var.metric_namespace}/${var.name}" # a filter of words has no dimensions
    name      = each.key
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "logs" {
  for_each = local.log_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "${var.metric_namespace}/${var.name}"
  metric_name         = each.key
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = each.value.periods
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
}

# The group wants more than it has for half an hour: no capacity in any zone, or a quota.
resource "aws_cloudwatch_metric_alarm" "group" {
  count = var.asg_name == null ? 0 : 1

  alarm_name          = "${var.name}-workers-not-started"
  alarm_description   = "The group ${var.asg_name} has fewer workers than it wants: aws autoscaling describe-scaling-activities says why. See docs/clusters/runbook.md, No capacity."
  evaluation_periods  = 6
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "missing"
    expression  = "wanted - there"
    label       = "workers that are wanted and not there"
    return_data = true
  }

  dynamic "metric_query" {
    for_each = { wanted = "GroupDesiredCapacity", there = "GroupInServiceInstances" }

    content {
      id = metric_query.key

      metric {
        namespace   = "AWS/AutoScaling"
        metric_name = metric_query.value
        period      = 300
        stat        = "Minimum"
        dimensions  = { AutoScalingGroupName = var.asg_name }
      }
    }
  }
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
