# Head and workers: IMDSv2, encrypted disks, no public address, from zero, with a quota.

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

  purchase         = "on-demand"
  scaling          = "ray"
  max_workers      = 2
  asg_name         = "test-workers"
  lifecycle_hook   = "test-drain"
  lifecycle_hook_s = 900
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
    condition     = length(aws_launch_template.worker.network_interfaces) == 0 && tolist(aws_launch_template.worker.vpc_security_group_ids) == tolist(["sg-0123456789abcdef0"])
    error_message = "EC2 refuses a subnet beside interfaces, and Ray and the group name the subnet."
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
    condition     = aws_launch_template.worker.update_default_version && aws_launch_template.worker.image_id == "ami-0123456789abcdef0"
    error_message = "Ray starts workers from the default version: a new image or release has to become it."
  }

  assert {
    condition     = length(aws_autoscaling_group.workers) == 0 && length(aws_autoscaling_policy.stop) == 0 && length(aws_launch_template.worker.instance_market_options) == 0 && length(aws_launch_template.worker.capacity_reservation_specification) == 0 && length(aws_launch_template.worker.placement) == 0
    error_message = "Where Ray scales there is no group; on-demand names no market and no place."
  }

  assert {
    condition     = data.aws_servicequotas_service_quota.vcpus[0].quota_code == "L-417A185B" && data.aws_servicequotas_service_quota.vcpus[0].service_code == "ec2"
    error_message = "The quota of on-demand P instances is checked."
  }
}

run "p5_beyond_the_quota" {
  command = plan

  module {
    source = "./modules/gpu_workers"
  }

  variables {
    max_workers = 53
  }

  expect_failures = [data.aws_servicequotas_service_quota.vcpus]
}

run "p5en_in_a_group" {
  command = apply # with mocks: nothing is made; the policy's ARN is needed

  module {
    source = "./modules/gpu_workers"
  }

  variables {
    instance_type = "p5en.48xlarge"
    purchase      = "spot"
    scaling       = "asg"
    subnet_ids    = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  }

  assert {
    condition     = output.type.gpu_memory_gb == 141 && output.type.vcpus == 192
    error_message = "p5en.48xlarge has H200."
  }

  assert {
    condition     = data.aws_servicequotas_service_quota.vcpus[0].quota_code == "L-C4BD4855"
    error_message = "Spot instances of the P5 family have a quota of their own."
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
    condition     = aws_autoscaling_policy.stop[0].adjustment_type == "ExactCapacity" && aws_autoscaling_policy.stop[0].scaling_adjustment == 0 && output.stop_policy_arns == [aws_autoscaling_policy.stop[0].arn]
    error_message = "The alarm boots-failing lowers the group to 0."
  }

  assert {
    condition     = toset(aws_autoscaling_group.workers[0].enabled_metrics) == toset(["GroupDesiredCapacity", "GroupInServiceInstances"]) && aws_autoscaling_group.workers[0].termination_policies == tolist(["NewestInstance"])
    error_message = "The alarm workers-not-started compares these; workers that have joined stay when the group is lowered."
  }

  assert {
    condition     = length(aws_autoscaling_schedule.block_start) + length(aws_autoscaling_schedule.block_end) == 0
    error_message = "Only a capacity block has a start and an end."
  }
}

run "p4d_in_a_block" {
  command = plan

  module {
    source = "./modules/gpu_workers"
  }

  variables {
    instance_type           = "p4d.24xlarge"
    scaling                 = "asg"
    purchase                = "capacity-block"
    capacity_reservation_id = "cr-0123456789abcdef0"
    capacity_block          = { start = "2099-12-01T11:30:00Z", end = "2099-12-03T11:30:00Z" }
  }

  assert {
    condition     = aws_launch_template.worker.instance_market_options[0].market_type == "capacity-block" && aws_launch_template.worker.capacity_reservation_specification[0].capacity_reservation_target[0].capacity_reservation_id == "cr-0123456789abcdef0"
    error_message = "A capacity block needs its market type and its id."
  }

  assert {
    condition     = aws_autoscaling_schedule.block_start[0].start_time == "2099-12-01T11:30:00Z" && aws_autoscaling_schedule.block_start[0].desired_capacity == 2 && aws_autoscaling_schedule.block_start[0].min_size == 0 && aws_autoscaling_schedule.block_start[0].max_size == 2
    error_message = "The group is raised when the block starts: it is paid from then on."
  }

  assert {
    condition     = aws_autoscaling_schedule.block_end[0].start_time == "2099-12-03T10:45:00Z" && aws_autoscaling_schedule.block_end[0].desired_capacity == 0
    error_message = "The group is lowered, with 15 minutes for the drain, before AWS ends the machines 30 minutes before the end."
  }

  assert {
    condition     = length(data.aws_servicequotas_service_quota.vcpus) == 0
    error_message = "Capacity blocks need no quota."
  }
}

run "a_block_that_has_begun" {
  command = plan

  module {
    source = "./modules/gpu_workers"
  }

  variables {
    scaling                 = "asg"
    purchase                = "capacity-block"
    capacity_reservation_id = "cr-0123456789abcdef0"
    capacity_block          = { start = "2020-12-01T11:30:00Z", end = "2099-12-03T11:30:00Z" }
  }

  assert {
    condition     = length(aws_autoscaling_schedule.block_start) == 0 && length(aws_autoscaling_schedule.block_end) == 1
    error_message = "AWS refuses a time that has passed."
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
    condition     = aws_launch_template.worker.placement[0].group_name == "where-it-was-made" && length(aws_launch_template.worker.instance_market_options) == 0
    error_message = "A reservation is used in its own placement group, on demand."
  }
}
