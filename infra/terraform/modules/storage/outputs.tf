output "buckets" {
  description = "Names by kind: weights, data, runs."
  value       = { for kind in local.kinds : kind => aws_s3_bucket.this[kind].bucket }
}

output "bucket_arns" {
  description = "ARNs by kind, made of the names: policies can be read in a plan."
  value       = local.arns
}

output "kms_key_arn" {
  description = "The key of everything at rest that is not a disk."
  value       = aws_kms_key.this.arn
}
