# One role per part: head, worker, flow log, and a policy for people. Every ARN is made of names, so that a plan shows
# whole policies. Where AWS knows no finer resource than "*", the statement says so; such actions only list or speak of the caller.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region
  account   = data.aws_caller_identity.current.account_id

  arn_prefix = { for service in ["ec2", "ssm", "logs", "autoscaling"] : service => "arn:${local.partition}:${service}:${local.region}:${local.account}" }

  worker_role_arn = "arn:${local.partition}:iam::${local.account}:role/${var.name}-worker"
  asg_arn         = "${local.arn_prefix.autoscaling}:autoScalingGroup:*:autoScalingGroupName/${var.asg_name}" # the star is a UUID

  ec2_trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })

  # What every node does: be reached by Session Manager and Run Command, write its logs and metrics, read the token.
  node_statements = [
    {
      Sid    = "SessionManagerAndRunCommand"
      Effect = "Allow"
      Action = [
        "ssm:UpdateInstanceInformation", "ssm:ListInstanceAssociations", "ssm:ListAssociations",
        "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
        "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage", "ec2messages:GetEndpoint",
        "ec2messages:GetMessages", "ec2messages:SendReply",
      ]
      Resource = "*" # the agent's channels have no ARNs; as in AmazonSSMManagedInstanceCore, less its reading of all parameters
    },
    {
      Sid      = "Metrics"
      Effect   = "Allow"
      Action   = ["cloudwatch:PutMetricData"]
      Resource = "*" # metrics have no ARNs; the namespace limits it
      Condition = {
        StringEquals = { "cloudwatch:namespace" = var.metric_namespace }
      }
    },
    {
      Sid      = "Logs"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      Resource = ["${local.arn_prefix.logs}:log-group:/${var.name}/*"]
    },
    {
      Sid      = "OurKey"
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = [var.kms_key_arn]
    },
    {
      Sid      = "Token"
      Effect   = "Allow"
      Action   = ["ssm:GetParameter"]
      Resource = ["${local.arn_prefix.ssm}:parameter${var.token_parameter}", "${local.arn_prefix.ssm}:parameter${var.head_ip_parameter}"]
    },
  ]

  head_statements = [
    {
      Sid      = "ListBuckets"
      Effect   = "Allow"
      Action   = ["s3:ListBucket", "s3:GetBucketLocation"]
      Resource = values(var.bucket_arns)
    },
    {
      Sid      = "ReadWeightsAndData"
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = ["${var.bucket_arns.weights}/*", "${var.bucket_arns.data}/*", "${var.bucket_arns.runs}/*"]
    },
    {
      # No deletion: parts are created once, and versions keep what --retry-failed replaces.
      Sid      = "WriteRuns"
      Effect   = "Allow"
      Action   = ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
      Resource = ["${var.bucket_arns.runs}/*"]
    },
    {
      Sid      = "ReleasesAreReadOnly"
      Effect   = "Deny"
      Action   = ["s3:PutObject"]
      Resource = ["${var.bucket_arns.runs}/cluster/releases/*"]
    },
    {
      Sid      = "MakeTokenOnce"
      Effect   = "Allow"
      Action   = ["ssm:PutParameter"]
      Resource = ["${local.arn_prefix.ssm}:parameter${var.token_parameter}"]
    },
    {
      Sid      = "EncryptIt"
      Effect   = "Allow"
      Action   = ["kms:Encrypt"]
      Resource = [var.kms_key_arn]
    },
  ]

  head_scaling = {
    asg = [
      {
        Sid      = "EndWorkersThatDoNotJoin"
        Effect   = "Allow"
        Action   = ["autoscaling:TerminateInstanceInAutoScalingGroup"]
        Resource = [local.asg_arn]
      },
      {
        Sid      = "RaiseAndLowerWorkers"
        Effect   = "Allow"
        Action   = ["autoscaling:SetDesiredCapacity"]
        Resource = [local.asg_arn]
      },
      {
        Sid      = "SeeInstances"
        Effect   = "Allow"
        Action   = ["ec2:DescribeInstances"]
        Resource = "*" # Describe calls know no resources
      },
    ]
    ray = [
      {
        Sid      = "SeeInstances"
        Effect   = "Allow"
        Action   = ["ec2:DescribeInstances"]
        Resource = "*" # Describe calls know no resources
      },
      {
        # Only from the workers' launch template, of its type, in our network. The request names the subnet, because Ray tries the
        # zones in turn, so the template is not all of it; what a worker may do is bounded by its role, see below.
        Sid    = "StartWorkersFromTheirTemplate"
        Effect = "Allow"
        Action = ["ec2:RunInstances"]
        Resource = concat(
          [for kind in ["volume", "network-interface", "placement-group", "spot-instances-request"] : "${local.arn_prefix.ec2}:${kind}/*"],
          [for id in var.subnet_ids : "${local.arn_prefix.ec2}:subnet/${id}"],
          ["${local.arn_prefix.ec2}:security-group/${var.worker_security_group_id}", "arn:${local.partition}:ec2:${local.region}::image/*", "arn:${local.partition}:ec2:${local.region}::snapshot/*"],
        )
        Condition = { ArnEquals = { "ec2:LaunchTemplate" = var.launch_template_arn } }
      },
      {
        Sid       = "OnlyOfTheirType"
        Effect    = "Allow"
        Action    = ["ec2:RunInstances"]
        Resource  = ["${local.arn_prefix.ec2}:instance/*"]
        Condition = { ArnEquals = { "ec2:LaunchTemplate" = var.launch_template_arn }, StringEquals = { "ec2:InstanceType" = var.worker_instance_type } }
      },
      {
        Sid      = "TemplateAndReservation"
        Effect   = "Allow"
        Action   = ["ec2:RunInstances"]
        Resource = concat([var.launch_template_arn], [for id in var.capacity_reservation_ids : "${local.arn_prefix.ec2}:capacity-reservation/${id}"])
      },
      {
        Sid      = "TagWhatItStarts"
        Effect   = "Allow"
        Action   = ["ec2:CreateTags"]
        Resource = ["${local.arn_prefix.ec2}:instance/*", "${local.arn_prefix.ec2}:volume/*"]
        Condition = {
          StringEquals = { "ec2:CreateAction" = "RunInstances" }
        }
      },
      {
        Sid      = "RenameAndEndWorkers"
        Effect   = "Allow"
        Action   = ["ec2:TerminateInstances", "ec2:CreateTags"]
        Resource = ["${local.arn_prefix.ec2}:instance/*"]
        Condition = {
          StringEquals = {
            "aws:ResourceTag/ray-cluster-name" = var.name
            "aws:ResourceTag/ray-node-type"    = "worker" # not the head itself
          }
        }
      },
      {
        Sid       = "GiveWorkersTheirRole"
        Effect    = "Allow"
        Action    = ["iam:PassRole"]
        Resource  = [local.worker_role_arn]
        Condition = { StringEquals = { "iam:PassedToService" = "ec2.amazonaws.com" } }
      },
    ]
  }

  worker_statements = [
    {
      Sid      = "ListBuckets"
      Effect   = "Allow"
      Action   = ["s3:ListBucket", "s3:GetBucketLocation"]
      Resource = [var.bucket_arns.weights, var.bucket_arns.runs]
    },
    {
      # Prompts and results pass through the driver on the head: a worker sees neither bucket.
      Sid      = "ReadWeightsAndRelease"
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = ["${var.bucket_arns.weights}/*", "${var.bucket_arns.runs}/cluster/*"]
    },
    {
      Sid      = "KeepCompiledPrograms"
      Effect   = "Allow"
      Action   = ["s3:PutObject"]
      Resource = ["${var.bucket_arns.runs}/cluster/jax-cache/*"]
    },
    {
      Sid      = "SayWhyABootFailed"
      Effect   = "Allow"
      Action   = ["s3:PutObject"]
      Resource = ["${var.bucket_arns.runs}/cluster/boots/*"]
    },
  ]

  worker_scaling = {
    ray = []
    asg = [{
      Sid    = "LeaveTheGroup"
      Effect = "Allow"
      Action = [
        "autoscaling:CompleteLifecycleAction", "autoscaling:TerminateInstanceInAutoScalingGroup",
      ]
      Resource = [local.asg_arn]
    }]
  }

  # Without it, a session that names no document gets a shell: Session Manager then checks the right to the instance alone.
  document_check = { BoolIfExists = { "ssm:SessionDocumentAccessCheck" = "true" } }

  # Roles and profiles do not depend on policies: the launch template needs a profile, and a policy names the template.
  kinds = toset(["head", "worker"])

  policies = {
    head   = jsonencode({ Version = "2012-10-17", Statement = concat(local.node_statements, local.head_statements, flatten([for way, statements in local.head_scaling : statements if way == var.scaling])) })
    worker = jsonencode({ Version = "2012-10-17", Statement = concat(local.node_statements, local.worker_statements, flatten([for way, statements in local.worker_scaling : statements if way == var.scaling])) })
  }
}

resource "aws_iam_role" "node" {
  for_each = local.kinds

  name               = "${var.name}-${each.key}"
  description        = "Grok-1 batch inference: the ${each.key} of the Ray cluster"
  assume_role_policy = local.ec2_trust
}

resource "aws_iam_role_policy" "node" {
  for_each = local.kinds

  name   = each.key
  role   = aws_iam_role.node[each.key].id
  policy = local.policies[each.key]
}

resource "aws_iam_instance_profile" "node" {
  for_each = local.kinds

  name = "${var.name}-${each.key}"
  role = aws_iam_role.node[each.key].name
}

resource "aws_iam_role" "flow_log" {
  name        = "${var.name}-flow-log"
  description = "Writes the VPC's flow log"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "flow_log" {
  name = "flow-log"
  role = aws_iam_role.flow_log.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
      Resource = ["${local.arn_prefix.logs}:log-group:/${var.name}/vpc-flow:*"]
    }]
  })
}

# For people who submit jobs: forward a port of the head, read the token, put prompts and fetch results. Attached to nobody here.
resource "aws_iam_policy" "submit" {
  name        = "${var.name}-submit"
  description = "Submit jobs to ${var.name}: port forwarding to its head, Ray's token, prompts and results"

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "ForwardPorts"
        Effect    = "Allow"
        Action    = ["ssm:StartSession"]
        Resource  = ["${local.arn_prefix.ec2}:instance/*"]
        Condition = merge(local.document_check, { StringEquals = { "aws:ResourceTag/ray-cluster-name" = var.name, "aws:ResourceTag/ray-node-type" = "head" } })
      },
      {
        Sid       = "PortsOnly"
        Effect    = "Allow"
        Action    = ["ssm:StartSession"]
        Condition = local.document_check
        Resource  = ["arn:${local.partition}:ssm:${local.region}::document/AWS-StartPortForwardingSession"]
      },
      {
        Sid      = "OwnSessions"
        Effect   = "Allow"
        Action   = ["ssm:TerminateSession", "ssm:ResumeSession"]
        Resource = ["${local.arn_prefix.ssm}:session/$${aws:username}-*"]
      },
      {
        Sid      = "Token"
        Effect   = "Allow"
        Action   = ["ssm:GetParameter"]
        Resource = ["${local.arn_prefix.ssm}:parameter${var.token_parameter}"]
      },
      {
        Sid      = "OurKey"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = [var.kms_key_arn]
      },
      {
        Sid      = "Buckets"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = [var.bucket_arns.data, var.bucket_arns.runs]
      },
      {
        Sid      = "Prompts"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = ["${var.bucket_arns.data}/*"]
      },
      {
        Sid      = "Results"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = ["${var.bucket_arns.runs}/*"]
      },
    ]
  })
}
