terraform {
  required_version = ">= 1.9.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "6.25.0" # what the tests run against; `terraform init` then writes .terraform.lock.hcl, commit yours
    }
  }

  # State on one person's disk is lost with it. Make a bucket for it and uncomment:
  # backend "s3" {
  #   bucket       = "YOUR-STATE-BUCKET"
  #   key          = "grok-batch/terraform.tfstate"
  #   region       = "us-east-1"
  #   use_lockfile = true
  # }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = { cluster = var.name }
  }
}
