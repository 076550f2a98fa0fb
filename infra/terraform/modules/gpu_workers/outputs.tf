output "launch_template_id" {
  description = "Of the workers."
  value       = aws_launch_template.worker.id
}

output "launch_template_arn" {
  description = "Of the workers."
  value       = aws_launch_template.worker.arn
}

output "type" {
  description = "Facts of the instance type."
  value       = local.type
}

output "stop_policy_arns" {
  description = "Scaling policy that lowers the group to 0; empty where there is no group."
  value       = aws_autoscaling_policy.stop[*].arn
}
