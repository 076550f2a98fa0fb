# A Ray cluster for batch inference on AWS: a small head that is always there, GPU workers that come for a job and go after it.
# Composed of modules that do not know each other; this file hands their outputs on. See docs/clusters/aws.md.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

data "aws_ssm_parameter" "head_ami" {
  count = var.head_ami_id == null ? 1 : 0

  name = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
}

data "aws_ssm_parameter" "worker_ami" {
  count = var.worker_ami_id == null ? 1 : 0

  name = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"
}

locals {
  region        = data.aws_region.current.region
  bucket_prefix = "${var.name}-${data.aws_caller_identity.current.account_id}-${local.region}"
  head_ami_id   = var.head_ami_id != null ? var.head_ami_id : nonsensitive(data.aws_ssm_parameter.head_ami[0].value)
  worker_ami_id = var.worker_ami_id != null ? var.worker_ami_id : nonsensitive(data.aws_ssm_parameter.worker_ami[0].value)

  token_parameter   = "/${var.name}/ray-auth-token"
  head_ip_parameter = "/${var.name}/head-ip"
  metric_namespace  = "GrokBatch"
  asg_name          = "${var.name}-workers"
  lifecycle_hook    = "${var.name}-drain"
  lifecycle_hook_s  = 900 # a batch under way may take minutes

  boot_minutes  = 20 # TimeoutStartSec of grok-batch-boot.service
  breaker_boots = 3  # failed boots in a row, after which no further worker is started

  urls = {
    weights    = "s3://${module.storage.buckets.weights}/${var.weights_prefix}"
    data       = "s3://${module.storage.buckets.data}"
    runs       = "s3://${module.storage.buckets.runs}/runs"
    release    = "s3://${module.storage.buckets.runs}/cluster/releases/grok-batch-${var.release_version}.tar"
    autoscaler = "s3://${module.storage.buckets.runs}/cluster/autoscaler.yaml"
    jax_cache  = "s3://${module.storage.buckets.runs}/cluster/jax-cache"
    boots      = "s3://${module.storage.buckets.runs}/cluster/boots/${substr(var.release_sha256, 0, 12)}" # a new release counts anew
  }

  # Ray's autoscaler ends idle workers by itself; then the worker's own watch is the second line.
  watch_idle_minutes = var.scaling == "ray" ? var.idle_minutes + 15 : var.idle_minutes

  # /etc/grok-batch/node.env: read by shells and by systemd, so values are plain words.
  environment = {
    CLUSTER             = var.name
    AWS_REGION          = local.region
    AWS_DEFAULT_REGION  = local.region
    RELEASE_VERSION     = var.release_version
    RELEASE_SHA256      = var.release_sha256
    RELEASE_URL         = local.urls.release
    WEIGHTS_URL         = local.urls.weights
    WEIGHTS_CHECK       = var.weights_check
    JAX_CACHE_URL       = local.urls.jax_cache
    AUTOSCALER_URL      = local.urls.autoscaler
    BOOTS_URL           = local.urls.boots
    BOOT_MINUTES        = local.boot_minutes
    BREAKER_BOOTS       = local.breaker_boots
    TOKEN_PARAMETER     = local.token_parameter
    HEAD_IP_PARAMETER   = local.head_ip_parameter
    KMS_KEY_ARN         = module.storage.kms_key_arn
    METRIC_NAMESPACE    = local.metric_namespace
    SCALING             = var.scaling
    ASG_NAME            = local.asg_name
    LIFECYCLE_HOOK      = local.lifecycle_hook
    LIFECYCLE_HOOK_S    = local.lifecycle_hook_s
    IDLE_MINUTES        = local.watch_idle_minutes
    WORKER_GPUS         = 8
    GCS_PORT            = 6379
    METRICS_PORT        = 8080
    NVME                = "/mnt/nvme"
    STATE               = "/var/lib/grok-batch"
    DRAINING_MARK       = "/run/grok-batch-draining/mark"
    COUNTED_MARK        = "/run/grok-batch-counted"
    RAY_AUTH_MODE       = "token"
    RAY_AUTH_TOKEN_PATH = "/etc/grok-batch/ray-auth-token"
  }

  user_data = {
    for role in ["head", "worker"] : role => templatefile("${path.module}/user_data.sh.tftpl", {
      environment = merge(local.environment, { ROLE = role })
    })
  }
}

module "storage" {
  source = "./modules/storage"

  name             = var.name
  bucket_prefix    = local.bucket_prefix
  noncurrent_days  = var.noncurrent_days
  runs_expire_days = var.runs_expire_days
  force_destroy    = var.force_destroy_buckets
}

module "observability" {
  source = "./modules/observability"

  name                 = var.name
  kms_key_arn          = module.storage.kms_key_arn
  log_retention_days   = var.log_retention_days
  metric_namespace     = local.metric_namespace
  alarm_emails         = var.alarm_emails
  monthly_budget_usd   = var.monthly_budget_usd
  worker_hours_per_day = var.worker_hours_per_day
  idle_alarm_minutes   = local.watch_idle_minutes + 30
  nightly              = var.nightly != null && try(var.nightly.enabled, false)
  asg_name             = var.scaling == "asg" ? local.asg_name : null
  breaker_boots        = local.breaker_boots
  stop_workers_arns    = module.gpu_workers.stop_policy_arns
}

module "network" {
  source = "./modules/network"

  name                = var.name
  vpc_cidr            = var.vpc_cidr
  availability_zones  = var.availability_zones
  nat_gateway         = var.nat_gateway
  interface_endpoints = var.interface_endpoints
  bucket_arns         = values(module.storage.bucket_arns)
  flow_log_group_arn  = module.observability.log_group_arns["vpc-flow"]
  flow_log_role_arn   = module.iam.flow_log_role_arn
}

module "iam" {
  source = "./modules/iam"

  name                     = var.name
  bucket_arns              = module.storage.bucket_arns
  kms_key_arn              = module.storage.kms_key_arn
  token_parameter          = local.token_parameter
  head_ip_parameter        = local.head_ip_parameter
  metric_namespace         = local.metric_namespace
  scaling                  = var.scaling
  asg_name                 = local.asg_name
  launch_template_arn      = module.gpu_workers.launch_template_arn
  worker_instance_type     = var.worker_instance_type
  worker_security_group_id = module.network.worker_security_group_id
  subnet_ids               = module.network.private_subnet_ids
  capacity_reservation_ids = var.capacity_reservation_id == null ? [] : [var.capacity_reservation_id]
}

module "head" {
  source = "./modules/head"

  name                  = var.name
  instance_type         = var.head_instance_type
  ami_id                = local.head_ami_id
  subnet_id             = module.network.private_subnet_ids[0]
  security_group_id     = module.network.head_security_group_id
  instance_profile_name = module.iam.instance_profile_names.head
  root_volume_gib       = var.head_volume_gib
  user_data             = local.user_data.head
  head_ip_parameter     = local.head_ip_parameter
}

module "gpu_workers" {
  source = "./modules/gpu_workers"

  name                     = var.name
  instance_type            = var.worker_instance_type
  ami_id                   = local.worker_ami_id
  subnet_ids               = module.network.private_subnet_ids
  security_group_id        = module.network.worker_security_group_id
  instance_profile_arn     = module.iam.instance_profile_arns.worker
  root_volume_gib          = var.worker_volume_gib
  user_data                = local.user_data.worker
  existing_placement_group = var.existing_placement_group
  purchase                 = var.purchase
  capacity_reservation_id  = var.capacity_reservation_id
  scaling                  = var.scaling
  capacity_block           = var.capacity_block
  max_workers              = var.max_workers
  asg_name                 = local.asg_name
  lifecycle_hook           = local.lifecycle_hook
  lifecycle_hook_s         = local.lifecycle_hook_s
}

module "schedule" {
  source = "./modules/schedule"
  count  = var.nightly == null ? 0 : 1

  name             = var.name
  head_instance_id = module.head.instance_id
  schedule         = var.nightly.schedule
  timezone         = var.nightly.timezone
  enabled          = var.nightly.enabled
  kms_key_arn      = module.storage.kms_key_arn

  configuration = {
    command        = var.nightly.command
    workers        = var.nightly.workers
    attempts       = var.nightly.attempts
    deadline_hours = var.nightly.deadline_hours
  }
}
