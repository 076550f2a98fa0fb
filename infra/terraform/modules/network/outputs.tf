output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "private_subnet_ids" {
  description = "Private subnets, in the order of availability_zones."
  value       = [for zone in var.availability_zones : aws_subnet.private[zone].id]
}

output "head_security_group_id" {
  description = "Of the Ray head."
  value       = aws_security_group.head.id
}

output "worker_security_group_id" {
  description = "Of the GPU workers."
  value       = aws_security_group.workers.id
}
