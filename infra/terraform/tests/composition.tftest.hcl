# The whole, as the examples compose it: who may do what, what nodes are told, what the documentation's commands read.
# Applied to mocks, so that every policy and every user data is known; tests/infra lints what this prints.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  availability_zones = ["us-east-1a", "us-east-1b"]
  release_version    = "1.2.3"
  release_sha256     = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  alarm_emails       = ["somebody@example.com"]
  monthly_budget_usd = 1000
}

run "ray_scales" {
  command = apply

  assert {
    condition     = output.cluster.name == "grok-batch" && output.cluster.worker_node_config.InstanceType == "p5.48xlarge" && output.cluster.worker_resources == { CPU = 192, GPU = 8 } && output.cluster.max_workers == 1
    error_message = "The generator of Ray's autoscaler configuration reads these."
  }

  assert {
    condition     = toset(keys(output.cluster.worker_node_config)) == toset(["LaunchTemplate", "InstanceType", "SubnetIds"]) && output.cluster.worker_node_config.LaunchTemplate.Version == "$Default" && length(output.cluster.worker_node_config.SubnetIds) == 2
    error_message = "Ray tries all zones, and takes image and settings from the template's default version: it pins none."
  }

  assert {
    condition     = output.boots_url == "s3://grok-batch-123456789012-us-east-1-runs/cluster/boots/0123456789ab" && local.environment.BOOTS_URL == output.boots_url && local.environment.BREAKER_BOOTS == 3 && local.environment.BOOT_MINUTES == 20
    error_message = "Three failed boots of 20 minutes at most, counted anew for each release."
  }

  assert {
    condition     = output.workers_asg_name == null && output.nightly_document == null && length(module.schedule) == 0
    error_message = "Without nightly and asg there is neither schedule nor group."
  }

  assert {
    condition     = strcontains(local.user_data.head, "ROLE=\"head\"") && strcontains(local.user_data.worker, "ROLE=\"worker\"") && strcontains(local.user_data.worker, "RELEASE_SHA256=\"0123456789abcdef") && strcontains(local.user_data.worker, "RAY_AUTH_MODE=\"token\"")
    error_message = "Nodes have to know their role, the release's digest, and that Ray asks for a token."
  }

  assert {
    condition     = length(base64encode(local.user_data.worker)) < 21848 && length(base64encode(local.user_data.head)) < 21848
    error_message = "EC2 takes 16 KiB of user data."
  }

  assert {
    condition     = !strcontains(nonsensitive(jsonencode(local.user_data)), "\"Value\"") && local.environment.TOKEN_PARAMETER == "/grok-batch/ray-auth-token"
    error_message = "The token is fetched by name; it stands in no user data."
  }

  assert {
    condition     = strcontains(output.connect_command, "AWS-StartPortForwardingSession") && strcontains(output.connect_command, output.head_instance_id) && strcontains(output.token_command, "--with-decryption")
    error_message = "The documentation's commands are these outputs."
  }

  assert {
    condition     = output.weights_url == "s3://grok-batch-123456789012-us-east-1-weights/grok-1" && output.autoscaler_config_url == "s3://grok-batch-123456789012-us-east-1-runs/cluster/autoscaler.yaml"
    error_message = "URLs are part of the documentation."
  }
}

run "a_group_scales_for_a_nightly_job" {
  command = apply

  variables {
    worker_instance_type = "p5en.48xlarge"
    scaling              = "asg"
    purchase             = "spot"
    max_workers          = 2

    nightly = {
      schedule = "cron(0 2 * * ? *)"
      workers  = 2
      command  = ["python", "jobs/evaluate.py", "-C", "jobs/configs/nightly.yaml", "--output", "s3://bucket/nightly/{night}"]
    }
  }

  assert {
    condition     = output.workers_asg_name == "grok-batch-workers" && output.nightly_document == "grok-batch-nightly"
    error_message = "Group and schedule are made, and named in outputs."
  }

  assert {
    condition     = local.watch_idle_minutes == 10 && length(module.network.private_subnet_ids) == 2
    error_message = "In a group, workers themselves are the first who notice that nobody needs them; spot looks in all zones."
  }
}
