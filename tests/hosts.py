"""Several hosts on one machine: network namespaces, connected by a bridge.

Each host has its own address, process ids, /tmp, /run, a copy-on-write home and an sshd. The
host h0 is the user's own computer. This needs root and the packages iproute2, openssh-server
and rsync. No traffic leaves the namespaces.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NEEDED = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "rsync": "rsync",
    "nsenter": "util-linux",
}

# The first process of a host. Its mounts disappear when it ends.
_BOOT = """
set -eu; state=$1 name=$2 root=$3 network=$4 first=$5
mount --make-rprivate /
mkdir -p $state/$name/upper $state/$name/work
mount -t overlay overlay -o lowerdir=$HOME,upperdir=$state/$name/upper,workdir=$state/$name/work \
    $HOME
# The checkout may be below /tmp, which is replaced.
mkdir -p $state/keep; mount --bind $root $state/keep
mount -t tmpfs tmpfs /tmp; chmod 1777 /tmp
mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /run; mkdir -p /run/sshd
mkdir -p $root; mount --bind $state/keep $root
hostname $name
# Ray resolves the host's name when the host has no route to the internet.
{ echo "127.0.0.1 localhost"
for i in 0 1 2 3 4 5 6 7 8 9; do echo "$network.$((first + i)) h$i"; done; } > /run/hosts
mount --bind /run/hosts /etc/hosts
echo "export PATH=$PATH" | tee $HOME/.bash_profile > $HOME/.bashrc
mkdir -p $HOME/.ssh; cp $state/key.pub $HOME/.ssh/authorized_keys; chmod -R go= $HOME/.ssh
# A user without root's rights, as on cloud instances; the images use the same user id.
mount -t tmpfs tmpfs /home; mkdir -p /home/ubuntu/.ssh
cp $HOME/.bash_profile $HOME/.bashrc /home/ubuntu
cp $state/key.pub /home/ubuntu/.ssh/authorized_keys; chmod -R go= /home/ubuntu/.ssh
chown -R 1000:1000 /home/ubuntu
for file in passwd group; do grep -v -e '^ubuntu:' -e ':1000:' /etc/$file > /run/$file; done
echo "ubuntu:x:1000:1000::/home/ubuntu:/bin/bash" >> /run/passwd
echo "ubuntu:x:1000:" >> /run/group
for file in passwd group; do mount --bind /run/$file /etc/$file; done
exec /usr/sbin/sshd -D -e -f /dev/null -h $state/hostkey -o UsePAM=no -o StrictModes=no \
    -o PasswordAuthentication=no -o UseDNS=no -o PidFile=none -o MaxStartups=100
"""


def missing() -> str | None:
    """The reason why this machine cannot have such hosts; None if it can."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacking = sorted(
        {package for tool, package in NEEDED.items() if not shutil.which(tool, path=path)}
    )
    if lacking:
        return f"needs the packages {' '.join(lacking)} (apt-get install)"
    trial = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], check=False)
    return None if trial.returncode == 0 else "this machine does not allow namespaces"


class Hosts:
    """The hosts h0, h1, ..., with consecutive addresses from `network`.`first` on."""

    def __init__(self, count: int, state: Path, network: str, first: int) -> None:
        self._state = state
        self._network = network
        self._base = first
        self._prefix = f"b{os.getpid() % 10**5}"
        self._first: dict[str, subprocess.Popen[bytes]] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self.key = state / "key"
        for key in (self.key, state / "hostkey"):
            _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
        self._switch = f"{self._prefix}sw"
        _call("ip", "netns", "add", self._switch)
        _call("ip", "-n", self._switch, "link", "add", "br0", "type", "bridge")
        _call("ip", "-n", self._switch, "link", "set", "br0", "up")
        for number in range(count):
            name = f"h{number}"
            space = self._prefix + name
            _call("ip", "netns", "add", space)
            cable = f"{space}c"
            _call(
                *("ip", "link", "add", cable, "netns", self._switch, "type", "veth"),
                *("peer", "name", "eth0", "netns", space),
            )
            _call("ip", "-n", self._switch, "link", "set", cable, "master", "br0", "up")
            _call("ip", "-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _call("ip", "-n", space, "link", "set", device, "up")
            self.boot(name)

    def address(self, name: str) -> str:
        """The address of a host."""
        return f"{self._network}.{self._base + int(name[1:])}"

    def boot(self, name: str) -> None:
        """Switch a host on; its disk keeps its contents."""
        with (self._state / f"{name}.log").open("ab") as log:
            self._first[name] = subprocess.Popen(
                [
                    *("nsenter", f"--net=/run/netns/{self._prefix}{name}"),
                    *("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"),
                    *("--mount-proc", "bash", "-c", _BOOT, "boot"),
                    *(str(self._state), name, str(ROOT), self._network, str(self._base)),
                ],
                env={"PATH": PATH, "HOME": str(Path.home())},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while self.run(name, "test -d /run/sshd && pgrep sshd", check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise TimeoutError((self._state / f"{name}.log").read_text())
            time.sleep(0.2)

    def cut_power(self, name: str) -> None:
        """Kill everything on a host at once."""
        first = self._first.pop(name)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()

    def unplug(self, name: str) -> None:
        """Disconnect a host from the network; its processes continue."""
        self._cable(name, "down")

    def plug_in(self, name: str) -> None:
        """Undo `unplug`."""
        self._cable(name, "up")

    def _cable(self, name: str, state: str) -> None:
        _call("ip", "-n", self._switch, "link", "set", f"{self._prefix}{name}c", state)

    def run(
        self,
        name: str,
        command: str,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on a host, in the checkout, and wait for it."""
        done = subprocess.run(
            self._inside(name, command, environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{name}: {command}: exit code {done.returncode}\n{done.stdout}")
        return done

    def start(self, name: str, command: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a shell command on a host; it ends with the host."""
        started = subprocess.Popen(
            self._inside(name, command, environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._started.append(started)

    def _inside(self, name: str, command: str, environment: Mapping[str, str]) -> list[str]:
        # The host's first process is the child of `unshare`.
        parent = self._first[name].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        target = children[0] if children else str(parent)
        settings = {"HOME": str(Path.home()), "PATH": PATH, "LANG": "C.UTF-8", "TERM": "dumb"}
        settings |= environment
        return [
            *("nsenter", "--target", target, "--all", "env", "-i"),
            *(f"{key}={value}" for key, value in settings.items()),
            *("bash", "-c", f"cd {ROOT} && {command}"),
        ]

    def close(self) -> None:
        """Switch all hosts off and delete the network."""
        for name in list(self._first):
            self.cut_power(name)
        for process in self._started:
            process.wait(timeout=30)
        spaces = subprocess.run(
            ["ip", "netns", "list"], capture_output=True, text=True, check=True
        ).stdout.split()
        for space in spaces:
            if space.startswith(self._prefix):
                _call("ip", "netns", "del", space)


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def hosts(count: int, network: str = "10.77.31", first: int = 10) -> Iterator[Hosts]:
    """A number of hosts that exist inside the `with` block; see `Hosts`."""
    # Not below /tmp, because every host has its own.
    state = Path(tempfile.mkdtemp(prefix="blur-es-hosts-", dir="/var/tmp"))
    # The upper folder of an overlay must not be on an overlay itself.
    _call("mount", "-t", "tmpfs", "tmpfs", str(state))
    try:
        made = Hosts(count, state, network, first)
        try:
            yield made
        finally:
            made.close()
    finally:
        _call("umount", "--lazy", str(state))
        state.rmdir()
