"""Set-up scripts (shell) and watchers (Python) of the machines that infra/terraform creates."""
