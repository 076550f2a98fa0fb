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

output "placement_group" {
  description = "Name of the placement group, null without one."
  value       = local.placement_group
}

# An instance has all its interfaces in one subnet, and Ray asks for no other than the one given here: the first.
output "network_interfaces" {
  description = "In the words of EC2's RunInstances, for Ray's autoscaler."
  value = [
    for interface in local.interfaces : {
      NetworkCardIndex    = interface.card
      DeviceIndex         = interface.device
      InterfaceType       = interface.type
      SubnetId            = var.subnet_ids[0]
      Groups              = [var.security_group_id]
      DeleteOnTermination = true
    }
  ]
}
