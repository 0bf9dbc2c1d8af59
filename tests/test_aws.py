"""Requests to AWS, tested against moto's EC2 and IAM, without an account or a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

_SCRIPT = """
import contextlib, io, json, sys
from pathlib import Path
import yaml
from moto import mock_aws

sys.path.insert(0, "cluster")
with mock_aws():
    import boto3, prepare_aws
    # Ray has no public names for what `ray up` does.
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    def prepare(*arguments):
        sys.argv = ["prepare_aws.py", *arguments]
        with contextlib.redirect_stdout(io.StringIO()) as out:
            prepare_aws.main()
        return dict(line.split(None, 1) for line in out.getvalue().splitlines())

    asked = ("--bucket", "my-blur-es", "--address")
    prepare(*asked, "203.0.113.9")
    values = prepare(*asked, "203.0.113.7")  # again, from another address
    for wrong in ("nonsense", "::1", "203.0.113.7/32"):
        try:
            prepare(*asked, wrong)
        except SystemExit as stop:
            assert stop.code == 2
        else:
            raise AssertionError(wrong)
    ec2, iam = boto3.client("ec2", "us-west-2"), boto3.client("iam")
    text = Path("cluster/gpu.yaml").read_text()
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for placeholder, value in {
        "<YOUR-SECURITY-GROUP>": values["<YOUR-SECURITY-GROUP>"],
        "<YOUR-AMI>": image,
        "<YOUR-REGISTRY>": "registry",
    }.items():
        text = text.replace(placeholder, value)
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    config = bootstrap_aws(AWSNodeProvider.fillout_available_node_types_resources(config))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, node in config["available_node_types"].items():
        tags = {"ray-node-type": "head" if name == "head" else "worker"}
        tags |= {"ray-user-node-type": name, "ray-node-name": name}
        tags |= {"ray-node-status": "uninitialized", "ray-launch-config": "x"}
        provider.create_node(node["node_config"], tags, 1)
    instances = [
        instance
        for reservation in ec2.describe_instances()["Reservations"]
        for instance in reservation["Instances"]
    ]
    group = ec2.describe_security_groups(GroupNames=["blur-es"])["SecurityGroups"][0]
    found = {
        "instances": {
            next(t["Value"] for t in i["Tags"] if t["Key"] == "ray-user-node-type"): [
                i["InstanceType"],
                i.get("InstanceLifecycle", "on-demand"),
                i["IamInstanceProfile"]["Arn"].rpartition("/")[2],
                [g["GroupName"] for g in i["SecurityGroups"]],
            ]
            for i in instances
        },
        "rules": [
            [
                rule["IpProtocol"],
                rule.get("FromPort"),
                [each["CidrIp"] for each in rule["IpRanges"]],
                [each["GroupId"] == group["GroupId"] for each in rule["UserIdGroupPairs"]],
            ]
            for rule in group["IpPermissions"]
        ],
        "public": boto3.client("s3").get_public_access_block(Bucket="my-blur-es")[
            "PublicAccessBlockConfiguration"
        ],
        "head": iam.get_role_policy(RoleName="blur-es-head", PolicyName="blur-es-head")[
            "PolicyDocument"
        ]["Statement"],
        "worker": iam.get_role_policy(RoleName="blur-es-worker", PolicyName="blur-es-worker")[
            "PolicyDocument"
        ]["Statement"],
    }
    ec2.terminate_instances(InstanceIds=[i["InstanceId"] for i in instances])
    # One of the user's own, for a registry, say.
    own = {"Version": "2012-10-17", "Statement": prepare_aws.use_bucket("another")}
    iam.put_role_policy(
        RoleName="blur-es-worker", PolicyName="own", PolicyDocument=json.dumps(own)
    )
    prepare("--remove")
    prepare("--remove")
    groups = ec2.describe_security_groups()["SecurityGroups"]
    roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    found["left"] = [g["GroupName"] for g in groups] + [r for r in roles if "blur" in r]
print(json.dumps(found))
"""


# Loading all of AWS takes long.
@pytest.mark.slow
def test_requests_to_aws_are_minimal(tmp_path: Path) -> None:
    pytest.importorskip("moto", reason="moto[server] plays AWS")
    environment = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        cwd=ROOT,
        env=environment
        | {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "1",
            "MOTO_ENABLE_AMI_VALIDATION": "1",
            "HOME": str(tmp_path),  # where Ray puts the key
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["instances"] == {
        "head": ["m7i.large", "on-demand", "blur-es-head", ["blur-es"]],
        "gpu": ["g6.xlarge", "spot", "blur-es-worker", ["blur-es"]],
        "cpu": ["c7a.2xlarge", "spot", "blur-es-worker", ["blur-es"]],
    }
    # ssh from one address, nodes among themselves, nothing else.
    assert sorted(found["rules"]) == [
        ["tcp", 0, [], [True]],
        ["tcp", 22, ["203.0.113.7/32"], []],
    ]
    assert all(found["public"].values())
    assert {action.partition(":")[0] for each in found["worker"] for action in each["Action"]} == {
        "s3"
    }
    # The head node's rights are limited to one region, or to instances of these clusters.
    on_instances = [each for each in found["head"] if "ec2:" in str(each["Action"])]
    assert on_instances
    assert all(each["Condition"] for each in on_instances)
    assert found["left"] == ["default"]
