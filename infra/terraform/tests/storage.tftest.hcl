# Everything at rest is encrypted, versioned and private; nothing is served without TLS.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name             = "test"
  bucket_prefix    = "test-123456789012-us-east-1"
  noncurrent_days  = 30
  runs_expire_days = 90
  force_destroy    = false
}

run "buckets" {
  command = apply # with mocks: nothing is made; the key's ARN is needed

  module {
    source = "./modules/storage"
  }

  assert {
    condition     = { for kind, bucket in aws_s3_bucket.this : kind => bucket.bucket } == { weights = "test-123456789012-us-east-1-weights", data = "test-123456789012-us-east-1-data", runs = "test-123456789012-us-east-1-runs" }
    error_message = "Expected three buckets, named by kind."
  }

  assert {
    condition     = alltrue([for block in values(aws_s3_bucket_public_access_block.this) : block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets]) && length(aws_s3_bucket_public_access_block.this) == 3
    error_message = "A bucket can be made public."
  }

  assert {
    condition     = alltrue(flatten([for encryption in values(aws_s3_bucket_server_side_encryption_configuration.this) : [for rule in encryption.rule : rule.bucket_key_enabled && rule.apply_server_side_encryption_by_default[0].sse_algorithm == "aws:kms" && rule.apply_server_side_encryption_by_default[0].kms_master_key_id == aws_kms_key.this.arn]]))
    error_message = "A bucket is not encrypted with the cluster's key."
  }

  assert {
    condition     = alltrue([for versioning in values(aws_s3_bucket_versioning.this) : versioning.versioning_configuration[0].status == "Enabled"])
    error_message = "A bucket keeps no versions."
  }

  assert {
    condition     = alltrue([for policy in values(aws_s3_bucket_policy.this) : jsondecode(policy.policy).Statement[0].Effect == "Deny" && jsondecode(policy.policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false"])
    error_message = "A bucket answers without TLS."
  }

  assert {
    condition     = alltrue([for lifecycle in values(aws_s3_bucket_lifecycle_configuration.this) : anytrue([for rule in lifecycle.rule : length(rule.abort_incomplete_multipart_upload) > 0])])
    error_message = "Unfinished uploads are paid for until they are ended: every bucket needs the rule."
  }

  assert {
    condition     = { for kind, lifecycle in aws_s3_bucket_lifecycle_configuration.this : kind => length([for rule in lifecycle.rule : rule if length(rule.expiration) > 0]) } == { weights = 0, data = 0, runs = 1 }
    error_message = "Only runs may expire."
  }

  assert {
    condition     = aws_kms_key.this.enable_key_rotation && alltrue([for bucket in values(aws_s3_bucket.this) : !bucket.force_destroy])
    error_message = "Keys rotate, and terraform destroy stops before full buckets."
  }
}
