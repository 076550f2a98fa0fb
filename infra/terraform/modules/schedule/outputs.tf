output "document_name" {
  description = "SSM document that starts the nightly job, also by hand."
  value       = aws_ssm_document.nightly.name
}
