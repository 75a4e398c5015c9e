"""Ray nodes in network namespaces of one machine: each has its own address, loopback, ports and view of /tmp."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.util.state import list_actors, list_nodes
from ray_head import RAY
from support import ROOT, environment, wait_for

HOSTS = Path("/etc/netns")  # where `ip netns exec` takes a namespace's own /etc/hosts from
GCS, DASHBOARD = 6379, 8265
NARROW = ("tbf", "rate", "100mbit", "burst", "16k", "limit", "16k")  # bursts of more than ten packets lose some


def why_not() -> str:
    """Empty where namespaces can be made; else what is missing."""
    if shutil.which("ip") is None:
        return "no `ip` (iproute2)"
    name = f"r4t-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces are not permitted here: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    name: str
    address: str
    raylet: subprocess.Popen[bytes]


class Network:
    """A bridge, a head without CPUs on it, and workers as they are asked for. This machine is on the bridge too."""

    def __init__(self) -> None:
        self.tag = f"r4t{os.getpid() % 100_000}"
        self.net = f"10.213.{os.getpid() % 250}"
        self.temporary = tempfile.mkdtemp(prefix="r4t-", dir="/tmp")  # Ray's socket paths must be short
        self.nodes: list[Node] = []
        _ip("link", "add", self.tag, "type", "bridge")
        _ip("addr", "add", f"{self.net}.1/24", "dev", self.tag)
        _ip("link", "set", self.tag, "up")
        try:
            self.head = self.start("--head", f"--temp-dir={self.temporary}", "--dashboard-host=0.0.0.0", "--num-cpus=0")
            wait_for("the dashboard", self._answers, timeout=300)
            self.wait_for(self.head)
        except BaseException:
            self.close()
            raise

    def start(self, *options: str, tmpfs: str = "") -> Node:
        """`ray start` in a namespace of its own, until it holds: it gives a node 30 seconds, busy machine or not, so it
        goes before what runs beside it.

        tmpfs: the size of a /tmp that only this node sees.
        """
        number = len(self.nodes) + 2
        name, address = f"{self.tag}-{number}", f"{self.net}.{number}"
        _namespace(name, address, self.tag, f"{self.net}.1")
        command = [
            RAY, "start", "--block", "--disable-usage-stats", f"--node-ip-address={address}",
            "--object-store-memory=150000000", *options,
        ]  # fmt: skip
        if "--head" not in options:
            command += [f"--address={self.net}.2:{GCS}"]
            # Ray's files are each node's own: nodes that unpack a job's code into one folder get in each other's way.
            own, size = ("/tmp", tmpfs) if tmpfs else (self.temporary, "2g")  # noqa: S108
            mount = f"mount -t tmpfs -o size={size} tmpfs {own} && "
            if ROOT.is_relative_to(own):  # the code stays where it is, seen by every node
                mount = f"mount --bind {ROOT} /mnt && {mount}mkdir -p {ROOT} && mount --bind /mnt {ROOT} && "
        else:
            mount = ""
        command = ["sh", "-c", mount + 'while :; do "$0" "$@"; done', *command]
        with self.log(name).open("w") as log:
            raylet = subprocess.Popen(
                ["nice", "-n", "-10", "ip", "netns", "exec", name, *command],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment({"PATH": f"{Path(RAY).parent}:{os.environ['PATH']}"}),
            )
        node = Node(name=name, address=address, raylet=raylet)
        self.nodes.append(node)
        return node

    def log(self, name: str) -> Path:
        """What a node's `ray start` said."""
        return Path(self.temporary) / f"{name}.log"

    @property
    def gcs(self) -> str:
        return f"{self.head.address}:{GCS}"

    @property
    def dashboard(self) -> str:
        return f"http://{self.head.address}:{DASHBOARD}"

    def alive(self) -> dict[str, str]:
        """Node ids of the living nodes by address."""
        return {node.node_ip: node.node_id for node in list_nodes(self.dashboard) if node.state == "ALIVE"}

    def wait_for(self, *nodes: Node) -> None:
        """Until the nodes have joined."""
        wait_for(
            "nodes to join", lambda: {node.address for node in nodes} <= self.alive().keys(), timeout=600, every=0.5
        )

    def seats(self, class_name: str) -> set[Node]:
        """The nodes that living actors of classes so named, or named so in part, sit on or are being started on."""
        found = list_actors(self.dashboard, detail=True, limit=1000)
        held = {one.node_id for one in found if one.state != "DEAD" and class_name in one.class_name}
        ids = self.alive()
        return {node for node in self.nodes if node.address in ids and ids[node.address] in held}

    def drain(self, node: Node, seconds: int) -> None:
        """What a cloud's notice of preemption becomes: Ray is told that the node will be gone."""
        done = self.run(
            self.head, RAY, "drain-node", f"--address={self.gcs}", f"--node-id={self.alive()[node.address]}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", f"--deadline-remaining-seconds={seconds}",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, node: Node, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """A command on a node, to its end."""
        return subprocess.run(
            ["ip", "netns", "exec", node.name, *map(str, command)],
            capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env=environment(),
        )  # fmt: skip

    @contextmanager
    def lossy(self, node: Node) -> Iterator[Callable[[], int]]:
        """A link that drops what comes faster than it carries, both ways. Yields what counts the packets dropped."""
        ends = (["dev", f"v{node.name}"], ["-n", node.name, "dev", "eth0"])
        for *inside, dev, name in ends:
            _run("tc", *inside, "qdisc", "add", dev, name, "root", *NARROW)

        def dropped() -> int:
            shown = [_run("tc", *inside, "-s", "qdisc", "show", dev, name) for *inside, dev, name in ends]
            return sum(int(found) for text in shown for found in re.findall(r"dropped (\d+)", text))

        try:
            yield dropped
        finally:
            for *inside, dev, name in ends:
                _run("tc", *inside, "qdisc", "del", dev, name, "root")

    def cut(self, node: Node, seconds: float) -> None:
        """Nothing passes, for so long."""
        _ip("link", "set", f"v{node.name}", "down")
        time.sleep(seconds)
        _ip("link", "set", f"v{node.name}", "up")

    def kill(self, node: Node) -> None:
        """SIGKILL for every process of the node: what others see of a machine that went without a word."""
        found = subprocess.run(["ip", "netns", "pids", node.name], capture_output=True, text=True, check=True)
        for pid in map(int, found.stdout.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.raylet.wait(timeout=60)

    def close(self) -> None:
        for node in reversed(self.nodes):
            self.kill(node)
            gone = [psutil.Process(int(pid)) for pid in _ip("netns", "pids", node.name).split()]
            psutil.wait_procs(gone, timeout=20)
            _ip("netns", "del", node.name)
            shutil.rmtree(HOSTS / node.name)
        _ip("link", "del", self.tag)
        with suppress(OSError):
            HOSTS.rmdir()  # unless somebody else's are there
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _answers(self) -> bool:
        assert self.head.raylet.poll() is None, "ray start --head ended"
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((self.head.address, DASHBOARD)) == 0


def _namespace(name: str, address: str, bridge: str, gateway: str) -> None:
    hosts = HOSTS / name / "hosts"  # as in a pod, the machine's name leads to the address that others reach
    hosts.parent.mkdir(parents=True)
    hosts.write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")
    resolver = "nameserver 127.0.0.1\n"  # nobody there: says so at once, others time out
    (hosts.parent / "resolv.conf").write_text(resolver)
    _ip("netns", "add", name)
    _ip("link", "add", f"v{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", f"v{name}", "master", bridge, "up")
    _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", name, "link", "set", "eth0", "up")
    _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", name, "route", "add", "default", "via", gateway)


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
