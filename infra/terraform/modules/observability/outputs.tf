output "log_group_arns" {
  description = "By what writes there: head, worker, jobs, vpc-flow."
  value       = { for key, group in aws_cloudwatch_log_group.this : key => group.arn }
}

output "topic_arn" {
  description = "Where alarms go."
  value       = aws_sns_topic.alarms.arn
}
