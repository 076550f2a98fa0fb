output "instance_id" {
  description = "Of the head."
  value       = aws_instance.head.id
}

output "private_ip" {
  description = "Of the head."
  value       = aws_instance.head.private_ip
}
