# Head and workers: IMDSv2, encrypted disks, no public address, the right network cards, from zero.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name                  = "test"
  instance_type         = "p5.48xlarge"
  ami_id                = "ami-0123456789abcdef0"
  subnet_id             = "subnet-0123456789abcdef0"
  subnet_ids            = ["subnet-0123456789abcdef0"]
  security_group_id     = "sg-0123456789abcdef0"
  instance_profile_name = "test-head"
  instance_profile_arn  = "arn:aws:iam::123456789012:instance-profile/test-worker"
  root_volume_gib       = 200
  user_data             = "#!/bin/sh"
  head_ip_parameter     = "/test/head-ip"

  efa                     = true
  cluster_placement_group = true
  purchase                = "on-demand"
  scaling                 = "ray"
  max_workers             = 2
  asg_name                = "test-workers"
  lifecycle_hook          = "test-drain"
  lifecycle_hook_s        = 900
}

run "head" {
  command = plan

  module {
    source = "./modules/head"
  }

  variables {
    instance_type = "m7i.2xlarge"
  }

  assert {
    condition     = aws_instance.head.metadata_options[0].http_tokens == "required" && aws_instance.head.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "The head answers IMDSv1, or to containers."
  }

  assert {
    condition     = aws_instance.head.root_block_device[0].encrypted && !aws_instance.head.associate_public_ip_address && aws_instance.head.monitoring
    error_message = "The head's disk is not encrypted, it has a public address, or is not watched."
  }

  assert {
    condition     = aws_instance.head.tags["ray-node-type"] == "head" && aws_instance.head.tags["ray-cluster-name"] == "test" && aws_instance.head.user_data_replace_on_change
    error_message = "Ray's autoscaler finds the head by its tags; a new release is a new head."
  }
}

run "p5" {
  command = plan

  module {
    source = "./modules/gpu_workers"
  }

  assert {
    condition     = length(aws_launch_template.worker.network_interfaces) == 32
    error_message = "p5.48xlarge has 32 network cards with EFA."
  }

  assert {
    condition     = [for interface in aws_launch_template.worker.network_interfaces : interface.interface_type if interface.network_card_index == 0] == ["efa"] && alltrue([for interface in aws_launch_template.worker.network_interfaces : interface.interface_type == "efa-only" && interface.device_index == 1 if interface.network_card_index > 0])
    error_message = "The first card has EFA and ENA, all others EFA alone."
  }

  assert {
    condition     = sort([for interface in aws_launch_template.worker.network_interfaces : format("%02d", interface.network_card_index)]) == sort([for card in range(32) : format("%02d", card)])
    error_message = "Expected one interface on each card."
  }

  assert {
    condition     = alltrue([for interface in aws_launch_template.worker.network_interfaces : interface.associate_public_ip_address == null && tolist(interface.security_groups) == tolist(["sg-0123456789abcdef0"])])
    error_message = "An interface is in another group, or names a public address, which EC2 refuses with several interfaces."
  }

  assert {
    condition     = aws_launch_template.worker.metadata_options[0].http_tokens == "required" && aws_launch_template.worker.block_device_mappings[0].ebs[0].encrypted == "true"
    error_message = "Workers answer IMDSv1 or have an open disk."
  }

  assert {
    condition     = aws_launch_template.worker.instance_initiated_shutdown_behavior == "terminate"
    error_message = "A worker that shuts itself down has to cost nothing more."
  }

  assert {
    condition     = aws_placement_group.this[0].strategy == "cluster" && length(aws_launch_template.worker.placement) == 1
    error_message = "Expected a cluster placement group, and the template to use it."
  }

  assert {
    condition     = length(aws_autoscaling_group.workers) == 0 && length(aws_launch_template.worker.instance_market_options) == 0 && length(aws_launch_template.worker.capacity_reservation_specification) == 0
    error_message = "Where Ray scales there is no group; on-demand names no market."
  }

  assert {
    condition     = length(output.network_interfaces) == 32 && output.network_interfaces[0].InterfaceType == "efa" && output.network_interfaces[31].NetworkCardIndex == 31
    error_message = "Ray's autoscaler has to ask for the same interfaces as the template."
  }
}

run "p5e" {
  command = plan

  module {
    source = "./modules/gpu_workers"
  }

  variables {
    instance_type = "p5e.48xlarge"
  }

  assert {
    condition     = length(aws_launch_template.worker.network_interfaces) == 32 && output.type.gpu_memory_gb == 141
    error_message = "p5e.48xlarge has 32 network cards and H200."
  }
}

run "p5en_in_a_group" {
  command = plan

  module {
    source = "./modules/gpu_workers"
  }

  variables {
    instance_type           = "p5en.48xlarge"
    purchase                = "spot"
    scaling                 = "asg"
    cluster_placement_group = false
    subnet_ids              = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  }

  assert {
    condition     = length(aws_launch_template.worker.network_interfaces) == 16
    error_message = "p5en.48xlarge has 16 network cards."
  }

  assert {
    condition     = aws_launch_template.worker.instance_market_options[0].market_type == "spot" && aws_launch_template.worker.instance_market_options[0].spot_options[0].instance_interruption_behavior == "terminate"
    error_message = "Expected one-time spot instances that end when interrupted."
  }

  assert {
    condition     = aws_autoscaling_group.workers[0].min_size == 0 && aws_autoscaling_group.workers[0].desired_capacity == 0 && aws_autoscaling_group.workers[0].max_size == 2 && length(aws_autoscaling_group.workers[0].vpc_zone_identifier) == 2
    error_message = "The group starts from zero, in all zones."
  }

  assert {
    condition     = aws_autoscaling_lifecycle_hook.drain[0].lifecycle_transition == "autoscaling:EC2_INSTANCE_TERMINATING" && aws_autoscaling_lifecycle_hook.drain[0].default_result == "CONTINUE"
    error_message = "Scaling in has to wait for the drain, and not for ever."
  }

  assert {
    condition     = length(aws_placement_group.this) == 0 && length(aws_launch_template.worker.placement) == 0
    error_message = "No placement group was asked for."
  }
}

run "p4d_without_efa_in_a_block" {
  command = plan

  module {
    source = "./modules/gpu_workers"
  }

  variables {
    instance_type           = "p4d.24xlarge"
    efa                     = false
    purchase                = "capacity-block"
    capacity_reservation_id = "cr-0123456789abcdef0"
    cluster_placement_group = false
  }

  assert {
    condition     = length(aws_launch_template.worker.network_interfaces) == 1 && aws_launch_template.worker.network_interfaces[0].interface_type == "interface" && aws_launch_template.worker.network_interfaces[0].associate_public_ip_address == "false"
    error_message = "Without EFA there is one ordinary interface."
  }

  assert {
    condition     = aws_launch_template.worker.instance_market_options[0].market_type == "capacity-block" && aws_launch_template.worker.capacity_reservation_specification[0].capacity_reservation_target[0].capacity_reservation_id == "cr-0123456789abcdef0"
    error_message = "A capacity block needs its market type and its id."
  }
}

run "p4de_in_a_reservation" {
  command = plan

  module {
    source = "./modules/gpu_workers"
  }

  variables {
    instance_type            = "p4de.24xlarge"
    purchase                 = "reservation"
    capacity_reservation_id  = "cr-0123456789abcdef0"
    existing_placement_group = "where-it-was-made"
  }

  assert {
    condition     = length(aws_launch_template.worker.network_interfaces) == 4
    error_message = "p4de.24xlarge has four network cards."
  }

  assert {
    condition     = length(aws_placement_group.this) == 0 && aws_launch_template.worker.placement[0].group_name == "where-it-was-made" && length(aws_launch_template.worker.instance_market_options) == 0
    error_message = "A reservation is used in its own placement group, on demand."
  }
}
