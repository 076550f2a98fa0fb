"""What runs on the machines that infra/terraform makes: shell for set-up, Python for what watches and repeats."""
