"""Docker engines for the tests: one builds the image, and one runs it on every host.

The engines have no bridge and no firewall rules: containers use the network of their host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import PATH, ROOT, Hosts

IMAGE = "registry.invalid/blur-es:0.1.0-cpu"
# Names an archive with the base image, for machines without access to a registry.
BASE_ARCHIVE = "BLUR_ES_BASE_IMAGE"
BASE = "python:3.11-slim"
_DAEMON = (
    "dockerd --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false "
    "--storage-driver overlay2"
)


def _client() -> str | None:
    """The path of the client; the one installed with the engine comes first."""
    return shutil.which("docker", path="/usr/bin") or shutil.which("docker", path=PATH)


def missing() -> str | None:
    """The reason why this machine cannot run an engine; None if it can."""
    if not (shutil.which("dockerd", path=PATH) and _client()):
        return "needs the package docker.io (apt-get install)"
    return None


@contextlib.contextmanager
def image() -> Iterator[Path]:
    """Build the image from this checkout; yield a folder with its archive.

    The folder is visible on all hosts. The test is skipped if the base image is not available.
    """
    folder = Path(tempfile.mkdtemp(prefix="blur-es-image-", dir="/var/tmp"))
    socket = folder / "engine.sock"
    environment = {"PATH": PATH, "HOME": str(folder), "DOCKER_HOST": f"unix://{socket}"}
    environment |= {"DOCKER_BUILDKIT": "1"}

    def docker(*arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            [str(_client()), *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)}:\n{done.stdout[-5000:]}")
        return done.stdout if done.returncode == 0 else ""

    with (folder / "engine.log").open("wb") as log:
        engine = subprocess.Popen(
            [
                *_DAEMON.split(),
                *("-H", f"unix://{socket}", "--data-root", str(folder / "data")),
                *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")),
            ],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 30
        while not docker("version", check=False):
            assert time.monotonic() < deadline, (folder / "engine.log").read_text()[-3000:]
            time.sleep(0.2)
        if base := os.environ.get(BASE_ARCHIVE):
            docker("load", "--quiet", "--input", base)
        elif not docker("pull", "--quiet", BASE, check=False):
            pytest.skip(f"no registry has {BASE}: {BASE_ARCHIVE} may name an archive with it")
        docker(
            *("build", "--network", "host", "--file", "docker/Dockerfile", "--target", "cpu"),
            *("--tag", IMAGE, "."),
        )
        demo = docker("run", "--rm", "--network", "none", "--shm-size", "1g", IMAGE)
        assert "SHA-256" in demo
        docker("save", "--output", str(folder / "image.tar"), IMAGE)
    except BaseException:
        _end(engine)
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _end(engine)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start(place: Hosts, name: str, built: Path, first: bool) -> None:
    """Start an engine with the image on a host; it ends together with the host.

    Args:
        place: the hosts.
        name: the host's name.
        built: the folder that `image` yields.
        first: this engine takes over the data of the one that built the image; all others
            load the archive.
    """
    data = built / ("data" if first else name)
    place.start(name, f"exec {_DAEMON} --data-root {data} > {data}.log 2>&1")
    deadline = time.monotonic() + 30
    while place.run(name, "docker version", check=False).returncode != 0:
        assert time.monotonic() < deadline, Path(f"{data}.log").read_text()[-3000:]
        time.sleep(0.2)
    # The user of a cloud instance may use the engine.
    place.run(name, "chmod a+rw /run/docker.sock")
    if not first:
        place.run(name, f"docker load --quiet --input {built / 'image.tar'}")


def _end(engine: subprocess.Popen[bytes]) -> None:
    engine.terminate()
    engine.wait(timeout=60)
