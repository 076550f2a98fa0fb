# Every wrong variable is refused by its own message, before anything is planned.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  availability_zones = ["us-east-1a"]
  release_version    = "1.2.3"
  release_sha256     = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

run "malformed" {
  command = plan

  variables {
    name                 = "Grok_Batch"
    availability_zones   = ["us-east-1a", "us-east-1a"]
    vpc_cidr             = "10.0.0.0/28"
    release_version      = "1.2 3"
    release_sha256       = "abc"
    weights_prefix       = "/grok-1/"
    weights_check        = "none"
    head_instance_type   = "m7g.2xlarge"
    head_ami_id          = "al2023"
    head_volume_gib      = 20
    worker_instance_type = "p3.16xlarge"
    worker_ami_id        = "dlami"
    worker_volume_gib    = 50
    max_workers          = 0
    scaling              = "by hand"
    idle_minutes         = 1
    purchase             = "auction"
    noncurrent_days      = 0
    runs_expire_days     = 1
    alarm_emails         = ["nobody"]
    worker_hours_per_day = 0
    worker_usd_per_hour  = 0
    log_retention_days   = 42
  }

  expect_failures = [
    var.name, var.availability_zones, var.vpc_cidr, var.release_version, var.release_sha256, var.weights_prefix, var.weights_check,
    var.head_instance_type, var.head_ami_id, var.head_volume_gib, var.worker_instance_type, var.worker_ami_id, var.worker_volume_gib,
    var.max_workers, var.scaling, var.idle_minutes, var.purchase, var.noncurrent_days, var.runs_expire_days, var.alarm_emails,
    var.worker_hours_per_day, var.worker_usd_per_hour, var.log_retention_days,
  ]
}

run "contradicting" {
  command = plan

  variables {
    availability_zones  = ["use1-az1"]
    head_instance_type  = "m7i.large"
    interface_endpoints = ["ssm", "logs"]
    purchase            = "reservation"
    monthly_budget_usd  = 1000
    nightly = {
      schedule = "every night"
      command  = ["python"]
      workers  = 2
    }
  }

  expect_failures = [
    var.availability_zones, var.head_instance_type, var.interface_endpoints, var.capacity_reservation_id,
    var.monthly_budget_usd, var.nightly,
  ]
}

run "a_block_in_two_zones_without_ec2_that_ray_scales" {
  command = plan

  variables {
    interface_endpoints     = ["ssm", "ssmmessages", "ec2messages", "logs", "monitoring", "autoscaling"]
    availability_zones      = ["us-east-1a", "us-east-1b"]
    purchase                = "capacity-block"
    capacity_reservation_id = "block"
    capacity_block          = { start = "2099-12-01T11:30:00Z", end = "2099-12-01T12:30:00Z" }
    nightly = {
      schedule = "cron(0 2 * * ? *)"
      command  = ["python", "jobs/evaluate.py", "--output", "s3://bucket/nightly"]
    }
  }

  expect_failures = [var.interface_endpoints, var.capacity_reservation_id, var.capacity_block, var.nightly]
}

run "a_block_without_times" {
  command = plan

  variables {
    purchase                = "capacity-block"
    scaling                 = "asg"
    capacity_reservation_id = "cr-0123456789abcdef0"
  }

  expect_failures = [var.capacity_block]
}

run "a_block_that_ray_scales" {
  command = plan

  variables {
    purchase                = "capacity-block"
    scaling                 = "ray"
    capacity_reservation_id = "cr-0123456789abcdef0"
    capacity_block          = { start = "2099-12-01T11:30:00Z", end = "2099-12-03T11:30:00Z" }
  }

  expect_failures = [var.capacity_block]
}

run "a_block_at_no_time" {
  command = plan

  variables {
    purchase                = "capacity-block"
    scaling                 = "asg"
    capacity_reservation_id = "cr-0123456789abcdef0"
    capacity_block          = { start = "tomorrow", end = "2099-12-02" }
  }

  expect_failures = [var.capacity_block]
}

run "a_schedule_of_five_fields" {
  command = plan

  variables {
    nightly = {
      schedule = "cron(0 2 * * *)"
      command  = ["python", "jobs/evaluate.py", "--output", "s3://bucket/{night}"]
    }
  }

  expect_failures = [var.nightly]
}

run "a_group_without_its_endpoint" {
  command = plan

  variables {
    scaling                  = "asg"
    interface_endpoints      = ["ssm", "ssmmessages", "ec2messages", "logs", "monitoring", "ec2"]
    capacity_reservation_id  = "cr-0123456789abcdef0" # with on-demand
    existing_placement_group = "mine"
    alarm_emails             = ["somebody@example.com"]
    monthly_budget_usd       = -1
    nightly = {
      schedule       = "cron(0 2 * * ? *)"
      command        = ["python", "jobs/evaluate.py", "--output", "s3://bucket/{night}"]
      attempts       = 0
      deadline_hours = 30
    }
  }

  expect_failures = [var.interface_endpoints, var.capacity_reservation_id, var.existing_placement_group, var.monthly_budget_usd, var.nightly]
}
