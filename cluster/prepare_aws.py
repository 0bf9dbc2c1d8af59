"""Prepare an AWS account for cluster/cpu.yaml and gpu.yaml; running it again does no harm.

    pip install -e '.[aws]'
    python cluster/prepare_aws.py --bucket my-blur-es

It makes

- a private bucket for run folders and data, if it does not exist;
- the role of head nodes (`blur-es-head`), which may start and end instances in the region, pass on
  the role of the workers and use the bucket;
- the role of workers (`blur-es-worker`), which may use the bucket;
- a security group that admits ssh from your address and all traffic between its members.

It prints the values for the placeholders of the files. Only storage in the bucket costs anything.
`--remove` removes everything except the bucket.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import sys
import urllib.request
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

GROUP, HEAD, WORKER = "blur-es", "blur-es-head", "blur-es-worker"
IMAGE_PARAMETER = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


def use_bucket(bucket: str) -> list[dict[str, Any]]:
    """Rights of every node: read, write, list and delete in one bucket."""
    return [
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:GetBucketLocation"],
            "Resource": f"arn:aws:s3:::{bucket}",
        },
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
            "Resource": f"arn:aws:s3:::{bucket}/*",
        },
    ]


def start_workers(region: str, account: str) -> list[dict[str, Any]]:
    """Rights of a head node: the calls of Ray's autoscaler in one region."""
    here = {"StringEquals": {"aws:RequestedRegion": region}}
    # Only instances that Ray has started.
    ours = {"StringLike": {"aws:ResourceTag/ray-cluster-name": "blur-es-*"}}
    return [
        {
            "Effect": "Allow",
            "Action": [
                "ec2:DescribeInstances",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeImages",
                "ec2:DescribeKeyPairs",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
                "ec2:RunInstances",
            ],
            "Resource": "*",
            "Condition": here,
        },
        {
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": "*",
            "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        },
        {
            "Effect": "Allow",
            "Action": ["ec2:CreateTags", "ec2:TerminateInstances"],
            "Resource": "*",
            "Condition": ours,
        },
        {
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": f"arn:aws:iam::{account}:role/{WORKER}",
        },
    ]


def make_bucket(session: boto3.Session, bucket: str) -> None:
    """Make a private bucket."""
    s3 = session.client("s3")
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        options: dict[str, Any] = {}
        if session.region_name != "us-east-1":  # the one region that accepts no constraint
            options["CreateBucketConfiguration"] = {"LocationConstraint": session.region_name}
        s3.create_bucket(Bucket=bucket, **options)
        s3.put_public_access_block(
            Bucket=bucket,
            PublicAccessBlockConfiguration=dict.fromkeys(
                (
                    "BlockPublicAcls",
                    "IgnorePublicAcls",
                    "BlockPublicPolicy",
                    "RestrictPublicBuckets",
                ),
                True,
            ),
        )


def make_role(session: boto3.Session, name: str, statements: list[dict[str, Any]]) -> None:
    """Make a role and its instance profile, or give an existing role these rights."""
    iam = session.client("iam")

    def unless_there(call: Any, **options: Any) -> None:
        try:
            call(**options)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("EntityAlreadyExists", "LimitExceeded"):
                raise

    unless_there(iam.create_role, RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST))
    iam.put_role_policy(
        RoleName=name,
        PolicyName=name,
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statements}),
    )
    unless_there(iam.create_instance_profile, InstanceProfileName=name)
    profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    if not profile["Roles"]:
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def allow_spot(session: boto3.Session) -> None:
    """Make the role that an account needs before its first spot instance."""
    try:
        session.client("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("InvalidInput", "EntityAlreadyExists"):
            raise


def find_group(ec2: Any, vpc: str) -> str | None:
    """The id of the security group, or None."""
    found = ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": [GROUP]}, {"Name": "vpc-id", "Values": [vpc]}]
    )["SecurityGroups"]
    return found[0]["GroupId"] if found else None


def make_group(ec2: Any, vpc: str, address: str) -> str:
    """Make the security group, or reset its rules; returns its id."""
    group = (
        find_group(ec2, vpc)
        or ec2.create_security_group(
            GroupName=GROUP, Description="ssh from one address; nodes among themselves", VpcId=vpc
        )["GroupId"]
    )
    present = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    if present:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=present)
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {
                "IpProtocol": "tcp",
                "FromPort": 22,
                "ToPort": 22,
                "IpRanges": [{"CidrIp": f"{address}/32", "Description": "ssh"}],
            },
            {
                "IpProtocol": "tcp",
                "FromPort": 0,
                "ToPort": 65535,
                "UserIdGroupPairs": [{"GroupId": group, "Description": "Ray"}],
            },
        ],
    )
    return str(group)


def default_vpc(ec2: Any) -> str:
    """The id of the region's default VPC."""
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        sys.exit("this region has no default network; make one: aws ec2 create-default-vpc")
    return str(found[0]["VpcId"])


def remove(session: boto3.Session) -> None:
    """Remove the roles and the group; instances that use them must have ended."""
    ec2, iam = session.client("ec2"), session.client("iam")
    if group := find_group(ec2, default_vpc(ec2)):
        ec2.delete_security_group(GroupId=group)
    for name in (HEAD, WORKER):
        try:
            policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
            attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        except iam.exceptions.NoSuchEntityException:
            policies, attached = [], []
        for policy in policies:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        for policy in attached:
            iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
        for call, options in (
            (
                iam.remove_role_from_instance_profile,
                {"InstanceProfileName": name, "RoleName": name},
            ),
            (iam.delete_instance_profile, {"InstanceProfileName": name}),
            (iam.delete_role, {"RoleName": name}),
        ):
            try:
                call(**options)
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchEntity":
                    raise


def ask_address() -> str:
    """The public address of this machine."""
    try:
        with urllib.request.urlopen("https://checkip.amazonaws.com", timeout=10) as answer:
            return str(answer.read().decode().strip())
    except OSError as error:
        sys.exit(f"cannot find out the address of this machine ({error}); give it with --address")


def main() -> None:
    """Read the options, then prepare the account or undo that."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--bucket", help="name of the bucket, which is made if it does not exist")
    parser.add_argument("--region", default="us-west-2", help="region of the files (us-west-2)")
    parser.add_argument("--address", help="address that may use ssh (default: this machine's)")
    parser.add_argument("--remove", action="store_true", help="remove everything except the bucket")
    options = parser.parse_args()
    if not options.remove and not options.bucket:
        parser.error("--bucket is needed")
    # Checked before anything is changed.
    if options.address is not None:
        try:
            ipaddress.IPv4Address(options.address)
        except ValueError:
            parser.error(f"--address: found {options.address}, expected one such as 203.0.113.7")
    try:
        prepare(options)
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"AWS: {error}")


def prepare(options: argparse.Namespace) -> None:
    """Make everything, or remove it."""
    session = boto3.Session(region_name=options.region)
    if options.remove:
        remove(session)
        return
    address = options.address or ask_address()
    account = session.client("sts").get_caller_identity()["Account"]
    ec2 = session.client("ec2")
    make_bucket(session, options.bucket)
    make_role(session, WORKER, use_bucket(options.bucket))
    make_role(session, HEAD, use_bucket(options.bucket) + start_workers(options.region, account))
    allow_spot(session)
    print(f"<YOUR-SECURITY-GROUP>  {make_group(ec2, default_vpc(ec2), address)}")
    try:
        image = session.client("ssm").get_parameter(Name=IMAGE_PARAMETER)["Parameter"]["Value"]
    except ClientError:
        image = "not found here: look for a Deep Learning Base AMI (Ubuntu 22.04) in the console"
    print(f"<YOUR-AMI>             {image}")
    print(f"ssh is admitted from {address}; use --run-dir s3://{options.bucket}/NAME")


if __name__ == "__main__":
    main()
