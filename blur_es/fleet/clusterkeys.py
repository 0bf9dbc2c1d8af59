"""Places in a cluster file, what is wrong there, and the values that a user fills in."""

from __future__ import annotations

from collections.abc import Iterator

PLACEHOLDERS = {
    "<YOUR-HEAD>": "the address of the head node, such as 192.168.1.10",
    "<YOUR-WORKER>": "the addresses of the worker nodes, such as 192.168.1.11, 192.168.1.12",
    "<YOUR-USER>": "the user name for ssh, such as ubuntu",
    "<YOUR-REGISTRY>": "the registry to which you pushed the image, such as ghcr.io/your-name",
    "<YOUR-AMI>": "an Ubuntu machine image with Docker and the NVIDIA driver in the region of the "
    "file, such as ami-0123456789abcdef0; `python cluster/prepare_aws.py` prints one",
    "<YOUR-SECURITY-GROUP>": "the id of a security group, such as sg-0123456789abcdef0; "
    "`python cluster/prepare_aws.py` makes one that admits only your address",
    "<YOUR-PROJECT>": "the id of your Google Cloud project, such as my-project-123456",
    "<YOUR-RESOURCE-GROUP>": "a name for the resource group that Ray makes, such as blur-es",
    "<YOUR-BUCKET>": "the name of your bucket, such as my-blur-es",
}

# The keys from the root to a place in the file, and what is wrong there.
Keys = tuple[str | int, ...]
Wrong = Iterator[tuple[Keys, str]]


def dotted(path: Keys) -> str:
    """Keys as text, such as `provider.type`."""
    return ".".join(map(str, path)) or "the file"
