# The nightly job is started by one document on one machine, and somebody is told when it was not.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name             = "test"
  kms_key_arn      = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  head_instance_id = "i-0123456789abcdef0"
  schedule         = "cron(0 2 * * ? *)"
  timezone         = "UTC"
  enabled          = true

  configuration = {
    command        = ["python", "jobs/evaluate.py", "it's \"quoted\" $HOME"]
    workers        = 2
    attempts       = 5
    deadline_hours = 12
  }

  log_retention_days   = 90
  metric_namespace     = "GrokBatch"
  alarm_emails         = ["somebody@example.com"]
  monthly_budget_usd   = 1000
  worker_hours_per_day = 12
  idle_alarm_minutes   = 45
  nightly              = true
  asg_name             = "test-workers"
  breaker_boots        = 3
  stop_workers_arns    = ["arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:11111111-2222-3333-4444-555555555555:autoScalingGroupName/test-workers:policyName/test-stop"]
}

run "schedule" {
  command = apply

  module {
    source = "./modules/schedule"
  }

  assert {
    condition     = aws_scheduler_schedule.nightly.target[0].arn == "arn:aws:scheduler:::aws-sdk:ssm:sendCommand" && jsondecode(aws_scheduler_schedule.nightly.target[0].input).InstanceIds == ["i-0123456789abcdef0"] && jsondecode(aws_scheduler_schedule.nightly.target[0].input).DocumentName == "test-nightly"
    error_message = "The schedule starts the document on the head."
  }

  assert {
    condition     = aws_scheduler_schedule.nightly.target[0].retry_policy[0].maximum_retry_attempts > 0 && aws_scheduler_schedule.nightly.state == "ENABLED"
    error_message = "A head that is being replaced must not cost a night."
  }

  assert {
    condition     = toset(flatten([for statement in jsondecode(aws_iam_role_policy.scheduler.policy).Statement : statement.Action])) == toset(["ssm:SendCommand", "kms:Decrypt"]) && !strcontains(aws_iam_role_policy.scheduler.policy, "*")
    error_message = "The schedule may start this document on this machine, nothing else."
  }

  assert {
    condition     = jsondecode(base64decode(split(" ", jsondecode(aws_ssm_document.nightly.content).mainSteps[0].inputs.runCommand[1])[1])).command[2] == "it's \"quoted\" $HOME"
    error_message = "Quotes and dollars of the command have to arrive as they are."
  }
}

run "alarms" {
  command = apply

  module {
    source = "./modules/observability"
  }

  assert {
    condition     = toset(keys(aws_cloudwatch_metric_alarm.nodes)) == toset(["worker-hours", "idle-workers", "worker-gave-up", "nightly-failed", "boots-failing", "breaker-open", "gpu-failed", "head-broken"])
    error_message = "Expected an alarm for spend, idle workers, failed boots, faulty GPUs, workers that gave up, a broken head, and lost nights."
  }

  assert {
    condition     = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.nodes), values(aws_cloudwatch_metric_alarm.logs), aws_cloudwatch_metric_alarm.group) : contains(alarm.alarm_actions, aws_sns_topic.alarms.arn) && alarm.actions_enabled != false])
    error_message = "An alarm without the topic as its action is told to nobody."
  }

  assert {
    condition     = { for name, alarm in aws_cloudwatch_metric_alarm.nodes : name => length(alarm.alarm_actions) if length(alarm.alarm_actions) > 1 } == { "boots-failing" = 2 } && contains(aws_cloudwatch_metric_alarm.nodes["boots-failing"].alarm_actions, var.stop_workers_arns[0])
    error_message = "Boots that fail lower the group to 0, even without a head; no other alarm does."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.nodes["boots-failing"].threshold == 3 && aws_cloudwatch_metric_alarm.nodes["boots-failing"].comparison_operator == "GreaterThanOrEqualToThreshold" && aws_cloudwatch_metric_alarm.nodes["boots-failing"].statistic == "Sum" && aws_cloudwatch_metric_alarm.nodes["boots-failing"].period == 3600
    error_message = "Three failed boots within an hour raise the alarm."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.nodes["head-broken"].treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.nodes["head-broken"].statistic == "Minimum" && aws_cloudwatch_metric_alarm.nodes["head-broken"].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.nodes["head-broken"].threshold == 1
    error_message = "A head that writes nothing is broken."
  }

  assert {
    condition     = alltrue([for name, filter in aws_cloudwatch_log_metric_filter.this : filter.metric_transformation[0].name == aws_cloudwatch_metric_alarm.logs[name].metric_name && filter.metric_transformation[0].namespace == aws_cloudwatch_metric_alarm.logs[name].namespace])
    error_message = "A filter counts what its alarm watches."
  }

  assert {
    condition     = { for name, filter in aws_cloudwatch_log_metric_filter.this : name => filter.log_group_name } == { gpu-xid = "/test/worker", workers-not-launched = "/test/head" } && strcontains(aws_cloudwatch_log_metric_filter.this["gpu-xid"].pattern, "NVRM: Xid")
    error_message = "Xid messages are in the workers' logs, the autoscaler's in the head's."
  }

  assert {
    condition     = [for query in aws_cloudwatch_metric_alarm.group[0].metric_query : query.expression if query.return_data == true] == ["wanted - there"] && { for query in aws_cloudwatch_metric_alarm.group[0].metric_query : query.id => query.metric[0].metric_name if length(query.metric) > 0 } == { wanted = "GroupDesiredCapacity", there = "GroupInServiceInstances" }
    error_message = "A group that gets no machine tells so."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.nodes["nightly-failed"].treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.nodes["idle-workers"].treat_missing_data == "notBreaching"
    error_message = "A night that never began is a failure; no workers is none."
  }

  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.nodes) : alarm.period * alarm.evaluation_periods <= 86400])
    error_message = "CloudWatch looks back one day at most."
  }

  assert {
    condition     = aws_budgets_budget.monthly[0].limit_amount == "1000" && length(aws_budgets_budget.monthly[0].notification) == 4
    error_message = "The budget tells at 50, 80, 100 % and by forecast."
  }

  assert {
    condition     = alltrue([for group in values(aws_cloudwatch_log_group.this) : group.kms_key_id == var.kms_key_arn && group.retention_in_days == 90])
    error_message = "Logs are encrypted and do not stay for ever."
  }
}
