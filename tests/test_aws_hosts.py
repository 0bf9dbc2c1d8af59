"""cluster/cpu.yaml and gpu.yaml from launch to termination: AWS's API is moto's, its machines are
namespaces.

`make test-cluster` runs this. The instances are hosts at the addresses that moto hands out. If
Docker is installed, the image is built and cpu.yaml's `docker:` section is used unchanged;
otherwise it is left out, and the packages are those of the tests. gpu.yaml is always tested without
containers; its workers have simulated GPUs and compute with JAX on their processors.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator

import pytest
import yaml

from tests import engines
from tests import hosts as made
from tests.hosts import ROOT, Hosts, hosts
from tests.processes import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(880)]

# A laptop that also simulates AWS, and the machines of the default subnet from its first address
# on.
AWS, FIRST = "172.31.0", 3
TRAIN = "blur-es train experiments/digits.yaml --set meta.compare=false --set meta.generations=60"
BOTH = "--set fleet.split.jax=0.5 --set fleet.split.numba=0.5"
INSTANCES = """
import boto3, json
print(json.dumps([
    [next(t["Value"] for t in i["Tags"] if t["Key"] == "ray-user-node-type"),
     i["State"]["Name"], i["InstanceType"], i.get("InstanceLifecycle", "on-demand")]
    for r in boto3.client("ec2").describe_instances()["Reservations"] for i in r["Instances"]
]))
"""


@pytest.fixture
def place() -> Iterator[Hosts]:
    if why := made.missing():
        pytest.skip(why)
    with hosts(4, AWS, FIRST) as there:
        endpoint = f"http://{there.address('h0')}:5000"
        for name in ("h0", "h1", "h2", "h3"):
            there.run(
                name,
                "mkdir -p ~/.aws; printf '[default]\\nregion=us-west-2\\nendpoint_url="
                f"{endpoint}\\naws_access_key_id=test\\naws_secret_access_key=test\\n' "
                "> ~/.aws/config",
            )
        there.start("h0", "exec moto_server -H 0.0.0.0 -p 5000")
        reach = f"curl -s -o /dev/null {endpoint}/moto-api/"
        wait_until(lambda: there.run("h0", reach, check=False).returncode == 0, "moto", 60)
        yield there


@pytest.mark.parametrize("containers", [True, False], ids=["containers", "packages"])
def test_launch_autoscaling_and_termination(place: Hosts, containers: bool) -> None:
    if containers:
        if why := engines.missing():
            pytest.skip(why)
        with engines.image() as built:
            engines.start(place, "h1", built, first=True)
            engines.start(place, "h2", built, first=False)
            launch_compute_and_end(place, "cpu.yaml", containers)
    elif not engines.missing():
        pytest.skip("with containers, which are tested here, it is the same and more")
    else:
        launch_compute_and_end(place, "cpu.yaml", containers)


def test_gpus_and_cores_in_one_cluster(place: Hosts) -> None:
    launch_compute_and_end(place, "gpu.yaml", containers=False)


def launch_compute_and_end(place: Hosts, file: str, containers: bool) -> None:
    types = {"cpu": ("c7a.2xlarge", {"CPU": 1})}
    if file == "gpu.yaml":
        types["gpu"] = ("g6.xlarge", {"CPU": 1, "GPU": 1})
    train = f"{TRAIN} {BOTH}" if file == "gpu.yaml" else TRAIN
    # The node with a GPU also has a core for one Numba worker; the second one needs another node.
    most = len(types)

    def laptop(command: str) -> str:
        return place.run("h0", command, True, {"RAY_AUTH_MODE": "token"}).stdout

    def instances() -> list[tuple[str, ...]]:
        return [tuple(each) for each in json.loads(laptop(f"python -c '{INSTANCES}'"))]

    def running(kind: str) -> int:
        return sum(each[:2] == (kind, "running") for each in instances())

    prepared = dict(
        line.split(None, 1)
        for line in laptop(
            f"python cluster/prepare_aws.py --bucket my-blur-es --address {place.address('h0')}"
        ).splitlines()
        if line.startswith("<YOUR")
    )
    image = laptop(
        "python -c 'import boto3; "
        'print(boto3.client("ec2").describe_images()["Images"][0]["ImageId"])\''
    ).strip()
    registry = engines.IMAGE.partition("/")[0]
    given = prepared | {"<YOUR-AMI>": image, "<YOUR-REGISTRY>": registry}
    text = (ROOT / "cluster" / file).read_text()
    for placeholder, value in given.items():
        text = text.replace(placeholder, value)
    config = yaml.safe_load(text)
    # The metadata service of an instance: its address and its credentials.
    config["file_mounts"]["~/.aws"] = "~/.aws"
    config["provider"] |= {"use_internal_ips": True, "availability_zone": "us-west-2a"}
    for kind, (_, resources) in types.items():
        config["available_node_types"][kind] |= {"resources": resources, "max_workers": 1}
    if containers:
        assert config["docker"]["image"] == engines.IMAGE
        config["docker"]["pull_before_run"] = False
    else:
        del config["docker"], config["initialization_commands"]
        for node in config["available_node_types"].values():
            node.pop("docker", None)
        # The packages of the tests may be where only root can see them.
        config["auth"]["ssh_user"] = "root"
    config["idle_timeout_minutes"] = 0.5
    filled = place.key.parent / file
    filled.write_text(yaml.safe_dump(config))

    laptop("ray get-auth-token --generate && chmod 600 ~/.ray/auth_token")
    # At its start, an instance admits the key pair.
    lets_in = threading.Thread(target=_let_the_key_pair_in, args=(place,))
    lets_in.start()
    try:
        laptop(f"ray up {filled} -y --no-config-cache")
        lets_in.join()
        # A small on-demand head node, and nothing else until a run requests it.
        assert instances() == [("head", "running", "m7i.large", "on-demand")]

        if file == "gpu.yaml":
            alone = laptop(
                "ray start --head --num-cpus=2 --num-gpus=1 --include-dashboard=false && "
                f"{train} --address auto --run-dir /tmp/alone; ray stop"
            )
        else:
            alone = laptop(f"{train} --local --run-dir /tmp/alone")
        run = f"{train} --address auto --run-dir s3://my-blur-es/run"
        run += f" --set fleet.autoscale.most={most}"
        here = "" if containers else f"cd {ROOT}; "
        log = laptop(f"ray exec {filled} --no-config-cache '{here}{run}'")
        workers = [each for each in instances() if each[0] != "head"]
        assert {kind for kind, *_ in workers} == set(types)
        assert set(workers) <= {
            (kind, state, of_type, "spot")
            for kind, (of_type, _) in types.items()
            for state in ("running", "terminated")
        }
        genome = re.compile(r"SHA-256 (\w{64})")
        expected, found = genome.search(alone), genome.search(log)
        assert expected
        assert found, log
        assert found.group(1) == expected.group(1)

        # The requests end with the run, and the workers end soon afterwards.
        wait_until(lambda: not any(map(running, types)), "the end of idle workers", 180)
        assert running("head") == 1
    finally:
        laptop(f"ray down {filled} -y")
    assert {state for _, state, _, _ in instances()} <= {"terminated", "shutting-down"}


def _let_the_key_pair_in(place: Hosts) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        public = place.run("h0", "ssh-keygen -y -f ~/.ssh/*.pem", check=False)
        if public.returncode == 0:
            for name in ("h1", "h2", "h3"):
                for home in ("~", "/home/ubuntu"):
                    key = public.stdout.strip()
                    place.run(name, f"echo '{key}' >> {home}/.ssh/authorized_keys")
            return
        time.sleep(0.2)
