# What a GPU worker is: a launch template from which Ray's autoscaler, or the Auto Scaling group made here, starts any number of them,
# beginning with none. Out: the template, the network interfaces in EC2's words, facts of the instance type.

locals {
  # "Accelerated computing instances" (EC2 instance types guide): vCPUs, network cards and EFA; "Instance store volumes": disks.
  # All have 8 GPUs. EFA: one interface per network card. Memory is of one GPU.
  types = {
    "p4d.24xlarge"  = { vcpus = 96, memory_gib = 1152, network_cards = 4, nvme = "8 x 1,000 GB", gpu = "A100", gpu_memory_gb = 40 }
    "p4de.24xlarge" = { vcpus = 96, memory_gib = 1152, network_cards = 4, nvme = "8 x 1,000 GB", gpu = "A100", gpu_memory_gb = 80 }
    "p5.48xlarge"   = { vcpus = 192, memory_gib = 2048, network_cards = 32, nvme = "8 x 3,840 GB", gpu = "H100", gpu_memory_gb = 80 }
    "p5e.48xlarge"  = { vcpus = 192, memory_gib = 2048, network_cards = 32, nvme = "8 x 3,840 GB", gpu = "H200", gpu_memory_gb = 141 }
    "p5en.48xlarge" = { vcpus = 192, memory_gib = 2048, network_cards = 16, nvme = "8 x 3,840 GB", gpu = "H200", gpu_memory_gb = 141 }
  }
  type = local.types[var.instance_type]

  placement_group = var.existing_placement_group != null ? var.existing_placement_group : (
    var.cluster_placement_group ? aws_placement_group.this[0].name : null
  )

  # The first card carries ENA and EFA, all others EFA alone, which takes no IP address ("Maximize network bandwidth on Amazon EC2
  # instances with multiple network cards", EC2 User Guide).
  interfaces = [
    for card in range(var.efa ? local.type.network_cards : 1) : {
      card   = card
      device = card == 0 ? 0 : 1
      type   = !var.efa ? "interface" : card == 0 ? "efa" : "efa-only"
    }
  ]
}

resource "aws_placement_group" "this" {
  count = var.cluster_placement_group && var.existing_placement_group == null ? 1 : 0

  name     = "${var.name}-workers"
  strategy = "cluster"
}

resource "aws_launch_template" "worker" {
  # checkov:skip=CKV_AWS_88:No interface asks for a public address, and the subnets give none.
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

  dynamic "network_interfaces" {
    for_each = local.interfaces

    content {
      network_card_index          = network_interfaces.value.card
      device_index                = network_interfaces.value.device
      interface_type              = network_interfaces.value.type
      associate_public_ip_address = length(local.interfaces) == 1 ? false : null # EC2 refuses the question with several interfaces
      security_groups             = [var.security_group_id]
      delete_on_termination       = true
    }
  }

  dynamic "placement" {
    for_each = local.placement_group == null ? [] : [local.placement_group]

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
