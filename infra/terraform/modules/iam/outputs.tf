output "instance_profile_arns" {
  description = "By role: head, worker."
  value       = { for role, profile in aws_iam_instance_profile.node : role => profile.arn }
}

output "instance_profile_names" {
  description = "By role: head, worker."
  value       = { for role, profile in aws_iam_instance_profile.node : role => profile.name }
}

output "flow_log_role_arn" {
  description = "Role of the VPC's flow log."
  value       = aws_iam_role.flow_log.arn
}

output "submit_policy_arn" {
  description = "Policy for people who submit jobs."
  value       = aws_iam_policy.submit.arn
}
