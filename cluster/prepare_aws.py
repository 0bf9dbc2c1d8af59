"""Make what cluster/cpu.yaml and gpu.yaml need in an AWS account, once: run it again at will.

    pip install 'blur_es[aws]'
    python cluster/prepare_aws.py --bucket my-blur-es

- a private bucket for run folders and data, if it is not there;
- the role of heads (`blur-es-head`: start and end this region's instances, pass the workers'
  role, use the bucket) and that of workers (`blur-es-worker`: use the bucket);
- a security group that lets in ssh from your address alone, and nodes of the cluster among
  themselves.

It prints the values for the placeholders of the files. Nothing of this costs anything but what
is stored in the bucket. `--remove` takes it all away again, except for the bucket.
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
    """What every node may do: read, write, list and delete in one bucket."""
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
    """What a head may do besides: what Ray's autoscaler calls, in one region."""
    here = {"StringEquals": {"aws:RequestedRegion": region}}
    # No other instances than those that Ray has started.
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
    """A bucket that nobody else can read."""
    s3 = session.client("s3")
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise
        options: dict[str, Any] = {}
        if session.region_name != "us-east-1":  # where the constraint may not be named
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
    """A role with an instance profile of the same name, or its present one with these rights."""
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
    """The role that an account needs before its first spot instance."""
    try:
        session.client("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("InvalidInput", "EntityAlreadyExists"):
            raise


def find_group(ec2: Any, vpc: str) -> str | None:
    """The id of the security group, if it is there."""
    found = ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": [GROUP]}, {"Name": "vpc-id", "Values": [vpc]}]
    )["SecurityGroups"]
    return found[0]["GroupId"] if found else None


def make_group(ec2: Any, vpc: str, address: str) -> str:
    """A security group with these two rules and no other; its id."""
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
    """The id of the region's default network."""
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        sys.exit("this region has no default network; make one: aws ec2 create-default-vpc")
    return str(found[0]["VpcId"])


def remove(session: boto3.Session) -> None:
    """Take roles and group away; instances that use them must have ended."""
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
    """This machine's address, as the world sees it."""
    try:
        with urllib.request.urlopen("https://checkip.amazonaws.com", timeout=10) as answer:
            return str(answer.read().decode().strip())
    except OSError as error:
        sys.exit(f"this machine's address could not be asked for ({error}): give it by --address")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--bucket", help="its name; made if it is not there")
    parser.add_argument("--region", default="us-west-2", help="as in the files (us-west-2)")
    parser.add_argument("--address", help="where ssh comes from (default: this machine's, asked)")
    parser.add_argument("--remove", action="store_true", help="take everything but the bucket away")
    options = parser.parse_args()
    if not options.remove and not options.bucket:
        parser.error("--bucket is needed")
    # Before anything is changed.
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
    """Make all of it, or take it away."""
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
    print(f"ssh is let in from {address}; --run-dir s3://{options.bucket}/NAME")


if __name__ == "__main__":
    main()
