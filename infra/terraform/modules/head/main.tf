# The Ray head: one instance in a private subnet without a public address. Dashboard and job server listen on its loopback and
# are reached by port forwarding through SSM. Out: its id and address; the latter also as an SSM parameter, for workers.

resource "aws_instance" "head" {
  ami                     = var.ami_id
  instance_type           = var.instance_type
  subnet_id               = var.subnet_id
  vpc_security_group_ids  = [var.security_group_id]
  iam_instance_profile    = var.instance_profile_name
  ebs_optimized           = true
  monitoring              = true
  disable_api_termination = false # replaced by every upgrade; it holds nothing that is not in S3

  associate_public_ip_address = false
  user_data                   = var.user_data
  user_data_replace_on_change = true # a new release is a new head

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required" # IMDSv2
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = var.root_volume_gib
    encrypted   = true
  }

  # Ray's node provider finds the head by these.
  tags = {
    Name               = "${var.name}-head"
    ray-cluster-name   = var.name
    ray-node-type      = "head"
    ray-user-node-type = "head"
    ray-node-status    = "up-to-date"
  }

  volume_tags = { Name = "${var.name}-head" }

  lifecycle {
    ignore_changes = [ami] # a new image every week is no reason to end a running job: terraform apply -replace does it when wanted
  }
}

resource "aws_ssm_parameter" "head_ip" {
  # checkov:skip=CKV2_AWS_34:An address inside the VPC is no secret.
  name        = var.head_ip_parameter
  description = "Private address of the Ray head"
  type        = "String"
  value       = aws_instance.head.private_ip
}
