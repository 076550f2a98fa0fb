# A VPC without a way in: private subnets, endpoints for the AWS services that nodes talk to, security groups that name each other.
# Out: ids of subnets and security groups. Knows nothing of instances.

data "aws_region" "current" {}
data "aws_partition" "current" {}

locals {
  region = data.aws_region.current.region

  # With the first two cuts a /16 gives /20 private subnets (4,091 addresses each) and a small public one for NAT.
  private_cidrs = { for index, zone in var.availability_zones : zone => cidrsubnet(var.vpc_cidr, 4, index) }
  public_cidr   = cidrsubnet(var.vpc_cidr, 8, 255)

  # dnf on Amazon Linux 2023 reads packages from this bucket ("Amazon Linux 2023 repositories", AL2023 User Guide).
  package_bucket_arn = "arn:${data.aws_partition.current.partition}:s3:::al2023-repos-${local.region}-de612dc2"
}

resource "aws_vpc" "this" {
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # private names of interface endpoints

  tags = { Name = var.name }
}

# The group that anything falls into that names none: nothing in, nothing out.
resource "aws_default_security_group" "closed" {
  vpc_id  = aws_vpc.this.id
  ingress = []
  egress  = []

  tags = { Name = "${var.name}-default-closed" }
}

resource "aws_flow_log" "rejected" {
  vpc_id                   = aws_vpc.this.id
  traffic_type             = "REJECT" # accepted traffic would be terabytes of weights
  log_destination_type     = "cloud-watch-logs"
  log_destination          = var.flow_log_group_arn
  iam_role_arn             = var.flow_log_role_arn
  max_aggregation_interval = 600

  tags = { Name = "${var.name}-rejected" }
}

resource "aws_subnet" "private" {
  for_each = local.private_cidrs

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = each.value
  map_public_ip_on_launch = false

  tags = { Name = "${var.name}-private-${each.key}" }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private.id
}

# -- NAT, only when asked for ------------------------------------------------------------------------------------------------

resource "aws_internet_gateway" "nat" {
  count = var.nat_gateway ? 1 : 0

  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-nat" }
}

resource "aws_subnet" "public" {
  count = var.nat_gateway ? 1 : 0

  vpc_id                  = aws_vpc.this.id
  availability_zone       = var.availability_zones[0]
  cidr_block              = local.public_cidr
  map_public_ip_on_launch = false # the NAT gateway brings its own address; nothing else belongs here

  tags = { Name = "${var.name}-nat" }
}

resource "aws_route_table" "public" {
  count = var.nat_gateway ? 1 : 0

  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-nat" }
}

resource "aws_route" "internet" {
  count = var.nat_gateway ? 1 : 0

  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.nat[0].id
}

resource "aws_route_table_association" "public" {
  count = var.nat_gateway ? 1 : 0

  subnet_id      = aws_subnet.public[0].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_eip" "nat" {
  # checkov:skip=CKV2_AWS_19:It belongs to the NAT gateway below, not to an instance.
  count = var.nat_gateway ? 1 : 0

  domain = "vpc"

  tags = { Name = "${var.name}-nat" }
}

resource "aws_nat_gateway" "this" {
  count = var.nat_gateway ? 1 : 0

  allocation_id = aws_eip.nat[0].id
  subnet_id     = aws_subnet.public[0].id

  tags = { Name = var.name }

  depends_on = [aws_internet_gateway.nat]
}

resource "aws_route" "nat" {
  count = var.nat_gateway ? 1 : 0

  route_table_id         = aws_route_table.private.id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[0].id
}

# -- endpoints ---------------------------------------------------------------------------------------------------------------

# Free, and the way that the weights take. Credentials of another account are of no use here: only these buckets can be reached.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${local.region}.s3"
  route_table_ids   = [aws_route_table.private.id]

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "OurBuckets"
        Effect    = "Allow"
        Principal = "*"
        Action    = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"]
        Resource  = concat(var.bucket_arns, [for arn in var.bucket_arns : "${arn}/*"])
      },
      {
        Sid       = "AmazonLinuxPackages"
        Effect    = "Allow"
        Principal = "*"
        Action    = ["s3:GetObject"]
        Resource  = ["${local.package_bucket_arn}/*"]
      },
    ]
  })

  tags = { Name = "${var.name}-s3" }
}

resource "aws_vpc_endpoint" "interface" {
  for_each = var.interface_endpoints

  vpc_id              = aws_vpc.this.id
  vpc_endpoint_type   = "Interface"
  service_name        = "com.amazonaws.${local.region}.${each.key}"
  subnet_ids          = [aws_subnet.private[var.availability_zones[0]].id] # one zone: each further one costs as much again
  security_group_ids  = [aws_security_group.endpoints.id]
  private_dns_enabled = true

  tags = { Name = "${var.name}-${each.key}" }
}

# -- security groups: every rule names another group or a prefix list, none an address range, but for NAT ---------------------

resource "aws_security_group" "head" {
  # checkov:skip=CKV2_AWS_5:Modules head and gpu_workers attach it.
  name        = "${var.name}-head"
  description = "Ray head: reached by workers only; people come through SSM, which needs no open port"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name}-head" }
}

resource "aws_security_group" "workers" {
  # checkov:skip=CKV2_AWS_5:Modules head and gpu_workers attach it.
  name        = "${var.name}-workers"
  description = "GPU workers: reached by the head and by each other"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name}-workers" }
}

resource "aws_security_group" "endpoints" {
  name        = "${var.name}-endpoints"
  description = "Interface endpoints: HTTPS from head and workers"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name}-endpoints" }
}

locals {
  members = { head = aws_security_group.head.id, workers = aws_security_group.workers.id }

  # Ray's processes talk to each other on ports of their own choice: all unprivileged TCP ports, so no SSH, and only among members.
  pairs = {
    head-from-workers    = { to = "head", from = "workers" }
    workers-from-head    = { to = "workers", from = "head" }
    workers-from-workers = { to = "workers", from = "workers" }
  }
}

resource "aws_vpc_security_group_ingress_rule" "ray" {
  # checkov:skip=CKV_AWS_25:The range holds port 3389, but comes from a security group of ours, not from the world.
  for_each = local.pairs

  description                  = "Ray, ${each.key}"
  security_group_id            = local.members[each.value.to]
  referenced_security_group_id = local.members[each.value.from]
  ip_protocol                  = "tcp"
  from_port                    = 1024
  to_port                      = 65535
}

resource "aws_vpc_security_group_egress_rule" "ray" {
  for_each = local.pairs

  description                  = "Ray, ${each.key}"
  security_group_id            = local.members[each.value.from]
  referenced_security_group_id = local.members[each.value.to]
  ip_protocol                  = "tcp"
  from_port                    = 1024
  to_port                      = 65535
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  for_each = local.members

  description                  = "HTTPS from ${each.key}"
  security_group_id            = aws_security_group.endpoints.id
  referenced_security_group_id = each.value
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  for_each = local.members

  description                  = "HTTPS to AWS services"
  security_group_id            = each.value
  referenced_security_group_id = aws_security_group.endpoints.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  for_each = local.members

  description       = "HTTPS to S3"
  security_group_id = each.value
  prefix_list_id    = aws_vpc_endpoint.s3.prefix_list_id
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "internet" {
  for_each = var.nat_gateway ? local.members : {}

  description       = "HTTPS to the internet through the NAT gateway"
  security_group_id = each.value
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
