# Nothing is open to the world, and nothing leads out but to AWS and, when asked for, through NAT.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name                = "test"
  vpc_cidr            = "10.42.0.0/16"
  availability_zones  = ["us-east-1a", "us-east-1b"]
  nat_gateway         = false
  interface_endpoints = ["ssm", "ssmmessages", "ec2messages", "logs", "monitoring", "ec2"]
  bucket_arns         = ["arn:aws:s3:::test-weights", "arn:aws:s3:::test-runs"]
  flow_log_group_arn  = "arn:aws:logs:us-east-1:123456789012:log-group:/test/vpc-flow"
  flow_log_role_arn   = "arn:aws:iam::123456789012:role/test-flow-log"
}

run "private" {
  command = plan

  module {
    source = "./modules/network"
  }

  assert {
    condition     = alltrue([for rule in concat(values(aws_vpc_security_group_ingress_rule.ray), values(aws_vpc_security_group_ingress_rule.endpoints)) : rule.cidr_ipv4 == null && rule.cidr_ipv6 == null && rule.prefix_list_id == null])
    error_message = "An ingress rule names an address range; only security groups may."
  }

  assert {
    condition     = alltrue([for rule in values(aws_vpc_security_group_ingress_rule.ray) : rule.from_port >= 1024])
    error_message = "SSH or another privileged port is open."
  }

  assert {
    condition     = alltrue([for rule in concat(values(aws_vpc_security_group_egress_rule.ray), values(aws_vpc_security_group_egress_rule.endpoints), values(aws_vpc_security_group_egress_rule.s3)) : rule.cidr_ipv4 == null && rule.cidr_ipv6 == null]) && length(aws_vpc_security_group_egress_rule.internet) == 0
    error_message = "Without NAT, no egress rule may name an address range."
  }

  assert {
    condition     = length(aws_internet_gateway.nat) + length(aws_nat_gateway.this) + length(aws_subnet.public) + length(aws_route.nat) == 0
    error_message = "There is a way to the internet although nat_gateway is false."
  }

  assert {
    condition     = length(aws_subnet.private) == 2 && alltrue([for subnet in values(aws_subnet.private) : !subnet.map_public_ip_on_launch])
    error_message = "Expected one private subnet per zone, without public addresses."
  }

  assert {
    condition     = aws_subnet.private["us-east-1a"].cidr_block == "10.42.0.0/20" && aws_subnet.private["us-east-1b"].cidr_block == "10.42.16.0/20"
    error_message = "Subnets overlap or are not where they were: moving them replaces everything in them."
  }

  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && !strcontains(aws_vpc_endpoint.s3.policy, "\"Resource\":\"*\"")
    error_message = "The S3 endpoint has to be a gateway with a policy that names buckets."
  }

  assert {
    condition     = length(aws_vpc_endpoint.interface) == 6 && alltrue([for endpoint in values(aws_vpc_endpoint.interface) : endpoint.private_dns_enabled])
    error_message = "Expected one interface endpoint per service, with private names."
  }

  assert {
    condition     = length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "The default security group has to stay closed."
  }
}

run "nat" {
  command = plan

  module {
    source = "./modules/network"
  }

  variables {
    nat_gateway = true
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 1 && !aws_subnet.public[0].map_public_ip_on_launch
    error_message = "Expected one NAT gateway, and no public addresses for instances."
  }

  assert {
    condition     = alltrue([for rule in values(aws_vpc_security_group_egress_rule.internet) : rule.from_port == 443 && rule.to_port == 443])
    error_message = "NAT is for HTTPS only."
  }
}
