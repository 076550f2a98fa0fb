output "cluster" {
  description = "Everything that the generator of Ray's autoscaler configuration needs, node configurations in EC2's own words."
  value = {
    name   = var.name
    region = local.region

    head_node_config = {
      InstanceType       = var.head_instance_type
      ImageId            = local.head_ami_id
      SubnetIds          = [module.network.private_subnet_ids[0]]
      SecurityGroupIds   = [module.network.head_security_group_id]
      IamInstanceProfile = { Arn = module.iam.instance_profile_arns.head }
    }

    # Image, disks, role and security group are those of the template's default version: an upgrade does not change this.
    worker_node_config = {
      LaunchTemplate = { LaunchTemplateId = module.gpu_workers.launch_template_id, Version = "$Default" }
      InstanceType   = var.worker_instance_type
      SubnetIds      = module.network.private_subnet_ids # tried in turn
    }

    head_resources   = { CPU = 0, GPU = 0 }
    worker_resources = { CPU = module.gpu_workers.type.vcpus, GPU = 8 }

    scaling               = var.scaling
    max_workers           = var.max_workers
    idle_timeout_minutes  = var.idle_minutes
    asg_name              = var.scaling == "asg" ? local.asg_name : null
    auth_token_parameter  = local.token_parameter
    weights_url           = local.urls.weights
    data_url              = local.urls.data
    runs_url              = local.urls.runs
    autoscaler_config_url = local.urls.autoscaler
    worker_weights_path   = "${local.environment.NVME}/weights"
    worker_usd_per_hour   = var.worker_usd_per_hour
  }
}

output "region" {
  description = "Region of everything."
  value       = local.region
}

output "head_instance_id" {
  description = "For aws ssm start-session."
  value       = module.head.instance_id
}

output "head_private_ip" {
  description = "Where workers find Ray's GCS, port 6379."
  value       = module.head.private_ip
}

output "vpc_id" {
  description = "The VPC."
  value       = module.network.vpc_id
}

output "private_subnet_ids" {
  description = "In the order of availability_zones."
  value       = module.network.private_subnet_ids
}

output "weights_url" {
  description = "Where the weights go, and what --checkpoint is."
  value       = local.urls.weights
}

output "data_url" {
  description = "Where prompts go."
  value       = local.urls.data
}

output "runs_url" {
  description = "Where run folders go."
  value       = local.urls.runs
}

output "releases_url" {
  description = "Where infra/terraform/release.sh puts releases."
  value       = "s3://${module.storage.buckets.runs}/cluster/releases"
}

output "autoscaler_config_url" {
  description = "Where the head looks for Ray's autoscaler configuration."
  value       = local.urls.autoscaler
}

output "auth_token_parameter" {
  description = "SSM parameter with Ray's token; the head makes it."
  value       = local.token_parameter
}

output "workers_asg_name" {
  description = "Auto Scaling group of the workers; null where Ray scales."
  value       = var.scaling == "asg" ? local.asg_name : null
}

output "worker_launch_template_id" {
  description = "What a worker is."
  value       = module.gpu_workers.launch_template_id
}

output "worker_facts" {
  description = "vCPUs, memory, network cards, disks and GPUs of the worker's type."
  value       = module.gpu_workers.type
}

output "submit_policy_arn" {
  description = "Attach it to those who submit jobs: port forwarding, token, prompts, results; no shell on any machine."
  value       = module.iam.submit_policy_arn
}

output "boots_url" {
  description = "Results of workers' boots: TIME-INSTANCE-joined, or -failed with the reason. An object that ends in -reset closes the breaker."
  value       = local.urls.boots
}

output "alarm_topic_arn" {
  description = "SNS topic of all alarms."
  value       = module.observability.topic_arn
}

output "nightly_document" {
  description = "SSM document that starts the nightly job by hand; null without one."
  value       = one(module.schedule[*].document_name)
}

output "connect_command" {
  description = "Forwards dashboard and job server of the head to this machine, port 8265."
  value       = "aws ssm start-session --region ${local.region} --target ${module.head.instance_id} --document-name AWS-StartPortForwardingSession --parameters portNumber=8265,localPortNumber=8265"
}

output "token_command" {
  description = "Prints Ray's token: export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=\"$(…)\"."
  value       = "aws ssm get-parameter --region ${local.region} --name ${local.token_parameter} --with-decryption --query Parameter.Value --output text"
}
