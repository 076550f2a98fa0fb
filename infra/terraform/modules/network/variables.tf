variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "vpc_cidr" {
  description = "Addresses of the VPC, a /16 to /20."
  type        = string
}

variable "availability_zones" {
  description = "A private subnet is made in each; the head lives in the first."
  type        = list(string)
}

variable "nat_gateway" {
  description = "Whether private subnets reach the internet through a NAT gateway in the first zone."
  type        = bool
}

variable "interface_endpoints" {
  description = "AWS services that private subnets reach without the internet, as in com.amazonaws.REGION.SERVICE."
  type        = set(string)
}

variable "bucket_arns" {
  description = "The only buckets, besides Amazon Linux's package repository, that can be reached through the S3 endpoint."
  type        = list(string)
}

variable "flow_log_group_arn" {
  description = "CloudWatch log group for rejected traffic."
  type        = string
}

variable "flow_log_role_arn" {
  description = "Role that writes the flow log."
  type        = string
}
