terraform {
  required_version = ">= 1.9.0" # validations that look at several variables

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.25.0, < 7.0.0"
    }
  }
}
