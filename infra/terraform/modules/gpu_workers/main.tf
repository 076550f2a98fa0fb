# What a GPU worker is: a launch template from which Ray's autoscaler, or the Auto Scaling group made here, starts any number of them,
# beginning with none. Out: the template, facts of the instance type. A replica lives on one machine, so workers need neither EFA nor
# to stand close together: one ordinary interface, in whichever subnet has capacity.

data "aws_region" "current" {}

locals {
  # "Accelerated computing instances" (EC2 instance types guide): vCPUs; "Instance store volumes": disks.
  # All have 8 GPUs. Memory is of one GPU. Quota: "Amazon EC2 endpoints and quotas", in vCPUs; spot has one per family.
  types = {
    "p4d.24xlarge"  = { vcpus = 96, memory_gib = 1152, nvme = "8 x 1,000 GB", gpu = "A100", gpu_memory_gb = 40, spot_quota = "L-7212CCBC" }
    "p4de.24xlarge" = { vcpus = 96, memory_gib = 1152, nvme = "8 x 1,000 GB", gpu = "A100", gpu_memory_gb = 80, spot_quota = "L-7212CCBC" }
    "p5.48xlarge"   = { vcpus = 192, memory_gib = 2048, nvme = "8 x 3,840 GB", gpu = "H100", gpu_memory_gb = 80, spot_quota = "L-C4BD4855" }
    "p5e.48xlarge"  = { vcpus = 192, memory_gib = 2048, nvme = "8 x 3,840 GB", gpu = "H200", gpu_memory_gb = 141, spot_quota = "L-C4BD4855" }
    "p5en.48xlarge" = { vcpus = 192, memory_gib = 2048, nvme = "8 x 3,840 GB", gpu = "H200", gpu_memory_gb = 141, spot_quota = "L-C4BD4855" }
  }
  type            = local.types[var.instance_type]
  on_demand_quota = "L-417A185B" # Running On-Demand P instances
}

# An account starts with a quota of 0: without this, the first sign is a worker that never starts. Capacity blocks need none.
data "aws_servicequotas_service_quota" "vcpus" {
  count = var.purchase == "capacity-block" ? 0 : 1

  service_code = "ec2"
  quota_code   = var.purchase == "spot" ? local.type.spot_quota : local.on_demand_quota

  lifecycle {
    postcondition {
      condition     = self.value >= var.max_workers * local.type.vcpus
      error_message = "max_workers = ${var.max_workers} of ${var.instance_type} needs a quota of ${var.max_workers * local.type.vcpus} vCPUs, this account has ${self.value} in ${data.aws_region.current.region}. Request an increase, which takes days: aws service-quotas request-service-quota-increase --service-code ec2 --quota-code ${self.quota_code} --desired-value ${var.max_workers * local.type.vcpus}"
    }
  }
}

resource "aws_launch_template" "worker" {
  name                                 = "${var.name}-worker"
  description                          = "GPU worker of the Ray cluster ${var.name}"
  image_id                             = var.ami_id
  instance_type                        = var.instance_type
  user_data                            = base64encode(var.user_data)
  instance_initiated_shutdown_behavior = "terminate" # a worker that shuts itself down costs nothing more
  update_default_version               = true
  ebs_optimized                        = true

  iam_instance_profile {
    arn = var.instance_profile_arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required" # IMDSv2
    http_put_response_hop_limit = 1
  }

  monitoring {
    enabled = true
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = var.root_volume_gib
      encrypted             = true
      delete_on_termination = true
    }
  }

  # No interfaces: Ray's autoscaler and the group name the subnet, which EC2 refuses beside interfaces. Subnets give no public address.
  vpc_security_group_ids = [var.security_group_id]

  dynamic "placement" {
    for_each = var.existing_placement_group == null ? [] : [var.existing_placement_group]

    content {
      group_name = placement.value
    }
  }

  dynamic "capacity_reservation_specification" {
    for_each = var.capacity_reservation_id == null ? [] : [var.capacity_reservation_id]

    content {
      capacity_reservation_target {
        capacity_reservation_id = capacity_reservation_specification.value
      }
    }
  }

  dynamic "instance_market_options" {
    for_each = contains(["spot", "capacity-block"], var.purchase) ? [var.purchase] : []

    content {
      market_type = instance_market_options.value

      dynamic "spot_options" {
        for_each = instance_market_options.value == "spot" ? [1] : []

        content {
          spot_instance_type             = "one-time"
          instance_interruption_behavior = "terminate"
        }
      }
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-worker", cluster = var.name }
  }

  tag_specifications {
    resource_type = "volume"
    tags          = { Name = "${var.name}-worker", cluster = var.name }
  }
}

# From nothing: the nightly job, or a person, sets how many are wanted; terraform apply does not set it back.
resource "aws_autoscaling_group" "workers" {
  count = var.scaling == "asg" ? 1 : 0

  name                      = var.asg_name
  min_size                  = 0
  desired_capacity          = 0
  max_size                  = var.max_workers
  vpc_zone_identifier       = var.subnet_ids
  health_check_type         = "EC2"
  health_check_grace_period = 1800 # packages and 318 GB of weights come first
  default_cooldown          = 60
  capacity_rebalance        = false # it would end a machine in the middle of its rows on a mere recommendation
  wait_for_capacity_timeout = "0"
  termination_policies      = ["NewestInstance"] # workers that have joined stay when fleet.py lowers the group because boots fail
  metrics_granularity       = "1Minute"
  enabled_metrics           = ["GroupDesiredCapacity", "GroupInServiceInstances"] # the alarm workers-not-started compares them

  launch_template {
    id      = aws_launch_template.worker.id
    version = aws_launch_template.worker.latest_version
  }

  tag {
    key                 = "Name"
    value               = "${var.name}-worker"
    propagate_at_launch = true
  }

  tag {
    key                 = "cluster"
    value               = var.name
    propagate_at_launch = true
  }

  lifecycle {
    ignore_changes = [desired_capacity]
  }
}

# Scaling in waits until watch.py has drained the node and nothing runs there any more.
resource "aws_autoscaling_lifecycle_hook" "drain" {
  count = var.scaling == "asg" ? 1 : 0

  name                   = var.lifecycle_hook
  autoscaling_group_name = aws_autoscaling_group.workers[0].name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = var.lifecycle_hook_s
  default_result         = "CONTINUE"
}

# The alarm boots-failing calls it, also when the head is gone.
resource "aws_autoscaling_policy" "stop" {
  count = var.scaling == "asg" ? 1 : 0

  name                   = "${var.name}-stop"
  autoscaling_group_name = aws_autoscaling_group.workers[0].name
  policy_type            = "SimpleScaling"
  adjustment_type        = "ExactCapacity"
  scaling_adjustment     = 0
}

# AWS refuses times that have passed, and ends a block's machines 30 minutes before its end: the group drains them before, within
# lifecycle_hook_s.
resource "aws_autoscaling_schedule" "block_start" {
  count = var.capacity_block != null && try(timecmp(var.capacity_block.start, plantimestamp()) > 0, false) ? 1 : 0

  scheduled_action_name  = "${var.name}-block-start"
  autoscaling_group_name = aws_autoscaling_group.workers[0].name
  start_time             = var.capacity_block.start
  min_size               = 0
  max_size               = var.max_workers
  desired_capacity       = var.max_workers
}

resource "aws_autoscaling_schedule" "block_end" {
  count = var.capacity_block != null && try(timecmp(timeadd(var.capacity_block.end, "-45m"), plantimestamp()) > 0, false) ? 1 : 0

  scheduled_action_name  = "${var.name}-block-end"
  autoscaling_group_name = aws_autoscaling_group.workers[0].name
  start_time             = timeadd(var.capacity_block.end, "-45m")
  min_size               = 0
  max_size               = 0
  desired_capacity       = 0
}
