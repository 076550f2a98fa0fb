output "cluster" {
  description = "For the generator of Ray's autoscaler configuration."
  value       = module.grok_batch.cluster
}

output "region" {
  description = "Region of everything."
  value       = module.grok_batch.region
}

output "head_instance_id" {
  description = "For aws ssm start-session."
  value       = module.grok_batch.head_instance_id
}

output "weights_url" {
  description = "Where the weights go, and what --checkpoint is."
  value       = module.grok_batch.weights_url
}

output "data_url" {
  description = "Where prompts go."
  value       = module.grok_batch.data_url
}

output "runs_url" {
  description = "Where run folders go."
  value       = module.grok_batch.runs_url
}

output "releases_url" {
  description = "Where release.sh puts releases."
  value       = module.grok_batch.releases_url
}

output "autoscaler_config_url" {
  description = "Where the head looks for Ray's autoscaler configuration."
  value       = module.grok_batch.autoscaler_config_url
}

output "auth_token_parameter" {
  description = "SSM parameter with Ray's token."
  value       = module.grok_batch.auth_token_parameter
}

output "connect_command" {
  description = "Forwards dashboard and job server of the head to this machine."
  value       = module.grok_batch.connect_command
}

output "token_command" {
  description = "Prints Ray's token."
  value       = module.grok_batch.token_command
}

output "workers_asg_name" {
  description = "Auto Scaling group of the workers; null where Ray scales."
  value       = module.grok_batch.workers_asg_name
}

output "nightly_document" {
  description = "SSM document that starts the nightly job by hand; null without one."
  value       = module.grok_batch.nightly_document
}

output "boots_url" {
  description = "Results and reasons of workers' boots."
  value       = module.grok_batch.boots_url
}

output "submit_policy_arn" {
  description = "Attach it to those who submit jobs."
  value       = module.grok_batch.submit_policy_arn
}
