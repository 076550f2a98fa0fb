# Every night: EventBridge Scheduler -> SSM Run Command -> a systemd service on the head, which submits the job and tries again
# (node/nightly.py). Run Command only starts the service: a job outlasts its own time-out and the agent's restarts. A service that
# still runs is not started twice. The same document, run by hand, starts a night again, which continues where it stopped.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  configuration = base64encode(jsonencode(var.configuration)) # no quoting to get wrong
  account       = data.aws_caller_identity.current.account_id
  arn_prefix    = "arn:${data.aws_partition.current.partition}"
}

resource "aws_ssm_document" "nightly" {
  name            = "${var.name}-nightly"
  document_type   = "Command"
  document_format = "JSON"

  content = jsonencode({
    schemaVersion = "2.2"
    description   = "Start the nightly job of ${var.name}; does nothing while it runs"
    mainSteps = [{
      action = "aws:runShellScript"
      name   = "start"
      inputs = {
        timeoutSeconds = "60"
        runCommand = [
          "set -eu",
          "echo ${local.configuration} | base64 --decode >/var/lib/grok-batch/nightly.json",
          "systemctl reset-failed grok-batch-nightly.service 2>/dev/null || true",
          "systemctl start --no-block grok-batch-nightly.service",
        ]
      }
    }]
  })
}

resource "aws_iam_role" "scheduler" {
  name        = "${var.name}-scheduler"
  description = "Starts the nightly job of ${var.name}"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "scheduler" {
  name = "start-nightly"
  role = aws_iam_role.scheduler.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "ThisDocumentOnThisMachine"
        Effect = "Allow"
        Action = ["ssm:SendCommand"]
        Resource = [
          "${local.arn_prefix}:ssm:${data.aws_region.current.region}:${local.account}:document/${var.name}-nightly",
          "${local.arn_prefix}:ec2:${data.aws_region.current.region}:${local.account}:instance/${var.head_instance_id}",
        ]
      },
      {
        Sid      = "OurKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = [var.kms_key_arn]
      },
    ]
  })
}

resource "aws_scheduler_schedule" "nightly" {
  name                         = "${var.name}-nightly"
  description                  = "Starts the nightly job on the head of ${var.name}"
  schedule_expression          = var.schedule
  schedule_expression_timezone = var.timezone
  state                        = var.enabled ? "ENABLED" : "DISABLED"
  kms_key_arn                  = var.kms_key_arn

  flexible_time_window {
    mode = "OFF"
  }

  target {
    arn      = "${local.arn_prefix}:scheduler:::aws-sdk:ssm:sendCommand"
    role_arn = aws_iam_role.scheduler.arn

    input = jsonencode({
      DocumentName = aws_ssm_document.nightly.name
      InstanceIds  = [var.head_instance_id]
      Comment      = "nightly job"
    })

    retry_policy {
      maximum_retry_attempts       = 12 # a head that is being replaced is back within the hour
      maximum_event_age_in_seconds = 7200
    }
  }
}
