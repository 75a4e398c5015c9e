"""Builds a target of the Dockerfile without a Docker engine, and runs it as the pods do.

    python tools/chroot_build.py --root /tmp/image [--target cpu] [--build-arg TORCH_CPU_INDEX=URL] [--keep]

As root on Linux, with debootstrap. A new Debian with its own Python stands in for the base image; the instructions of
the target and of the stages below it are carried out there in order. Then, as its USER, on a read-only root, without a
network: CMD, `r4t doctor`, and the whole pipeline of a small configuration. Progress goes to stderr, JSON to stdout;
exit code 1 if a step or a command fails. `--env` and `--bind` hand this machine's settings and files to RUN alone, for
a package source of its own. Every command has mounts of its own, so none is left.

What it does not show: that the base image can be pulled and fits (its Python is another build), what an engine adds
(layers, caches, the image's format), stages with COPY --from or RUN --mount, limits of memory, and seccomp.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KNOWN = {"FROM", "ARG", "ENV", "SHELL", "WORKDIR", "COPY", "RUN", "USER", "CMD"}
BASE = re.compile(r"python:(\d+\.\d+)[.\d]*-slim-([a-z]+)")
BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
NO_APT_CACHE = """Dir::Cache { pkgcache ""; srcpkgcache ""; };
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
"""  # Debian's images have such a file
VOLUMES = ("tmp", "runs", "dev/shm")  # of the pods, like these variables
POD_ENV = {"HOME": "/tmp", "R4T_CACHE": "/runs/.cache", "RAY_USAGE_STATS_ENABLED": "0"}  # noqa: S108
CONFIG = "/tmp/config.yaml"  # noqa: S108
READ_ONLY = "! touch written && ! touch ~r4t/written"
DOCTOR = "r4t doctor --storage /runs --json"
PIPELINE = f"r4t run {CONFIG} --run-dir /runs/x && r4t verify /runs/x"
LIMIT = 3600  # seconds for a step or a command

Instruction = tuple[str, str]  # name, arguments


class BuildError(Exception):
    """The Dockerfile asks for what this tool cannot do, or a step failed."""


def read_dockerfile(text: str) -> list[Instruction]:
    """Every instruction, continued lines joined, without comments. Raises BuildError at one that is not known."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = []
    for line in re.sub(r"\\[ \t]*\n", "", "\n".join(lines)).splitlines():
        name, _, arguments = line.strip().partition(" ")
        if name.upper() not in KNOWN:
            raise BuildError(f"unknown instruction: {line.strip()}")
        found.append((name.upper(), arguments.strip()))
    return found


def expand(text: str, values: dict[str, str]) -> str:
    """Puts values, or nothing, in the place of `$NAME` and `${NAME}`. Raises BuildError at `${NAME:-x}`."""
    if other := re.search(r"\$\{\w*[^\w}]", text):
        raise BuildError(f"unknown substitution: {other[0]}")
    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda name: values.get(name[1] or name[2], ""), text)


def stage_chain(
    instructions: list[Instruction], target: str, build_args: dict[str, str]
) -> tuple[str, list[Instruction]]:
    """The base image, and the instructions of `target` after those of the stages it is built on."""
    values: dict[str, str] = {}  # of the ARGs before the first stage: FROM alone sees them
    stages: dict[str, tuple[str, list[Instruction]]] = {}
    steps: list[Instruction] | None = None
    for name, text in instructions:
        if name == "FROM":
            parts = re.fullmatch(r"(\S+)(?:\s+AS\s+(\S+))?", text, re.IGNORECASE)
            if parts is None:
                raise BuildError(f"unknown form: FROM {text}")
            steps = []
            stages[parts[2] or str(len(stages))] = (expand(parts[1], values), steps)
        elif steps is not None:
            steps.append((name, text))
        else:
            variable, _, default = text.partition("=")
            values[variable] = build_args.get(variable, expand(default, values))
    base, chain = target, list[Instruction]()
    while base in stages:
        base, steps = stages[base]
        chain = steps + chain
    if base == target:
        raise BuildError(f"no stage {target}: there are {', '.join(stages)}")
    return base, chain


def context_files(context: Path, source: str) -> list[str]:
    """The tracked files at or below `source` that .dockerignore, a list of what is allowed, lets travel."""
    allowed = re.findall(r"^!(.+)$", (context / ".dockerignore").read_text(), re.MULTILINE)
    listing = ["git", "ls-files", "-z", "--", *allowed]
    names = subprocess.run(listing, cwd=context, capture_output=True, text=True, check=True).stdout.split("\0")
    if found := [name for name in names if name and PurePosixPath(name).is_relative_to(source)]:
        return found
    raise BuildError(f"nothing that travels to the builder is called {source}")


@dataclass
class Image:
    """A root file system, and what the instructions so far have set."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": BASE_PATH})
    args: dict[str, str] = field(default_factory=dict)
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    workdir: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    run_env: dict[str, str] = field(default_factory=dict)  # this machine's, for RUN
    binds: list[Path] = field(default_factory=list)

    def apply(self, name: str, text: str, build_args: dict[str, str]) -> None:
        """Carries out one instruction. Raises BuildError if it fails."""
        values = self.args | self.env
        if text.startswith("--") or "<<" in text:
            raise BuildError(f"unknown form: {name} {text}")
        if name == "ARG":
            variable, _, default = text.partition("=")
            self.args[variable] = build_args.get(variable, expand(default, values))
        elif name == "ENV":
            pairs = (word.partition("=") for word in shlex.split(expand(text, values)))
            self.env |= {variable: value for variable, _, value in pairs}
        elif name == "SHELL":
            self.shell = json.loads(text)
        elif name == "WORKDIR":
            self.workdir = str(PurePosixPath(self.workdir) / expand(text, values))
            self.path(self.workdir).mkdir(parents=True, exist_ok=True)
        elif name == "USER":
            self.user = expand(text, values)
        elif name == "CMD":
            self.command = self.words(text)
        elif name == "COPY":
            *sources, destination = shlex.split(expand(text, values))
            for source in sources:
                self.copy(source, destination)
        elif code := self.start(self.words(text)).returncode:
            raise BuildError(f"exit code {code}: {name} {text}")

    def words(self, text: str) -> list[str]:
        return json.loads(text) if text.startswith("[") else [*self.shell, text]

    def path(self, inside: str | PurePosixPath) -> Path:
        return self.root / str(PurePosixPath(self.workdir) / inside).lstrip("/")

    def copy(self, source: str, destination: str, context: Path = ROOT) -> None:
        """A folder's content, or a file; links stay links, and all of it is root's."""
        for name in context_files(context, source):
            to = self.path(destination) / PurePosixPath(name).relative_to(source)
            if name == source and destination.endswith("/"):
                to /= PurePosixPath(name).name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(context / name, to, follow_symlinks=False)

    def start(self, command: list[str], config: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a command in the root as its user; its mounts and processes end with it.

        With `config` as the pods do: on a read-only root with their volumes, `config` in /tmp, and without a network.
        """
        root = self.root
        kernel = [f"--rbind /dev {root}/dev", f"-t proc proc {root}/proc", f"-t sysfs -o ro sysfs {root}/sys"]
        if config:
            env = self.env | POD_ENV
            mounts = [f"--bind {root} {root}", f"-o remount,bind,ro {root}", *kernel]
            mounts += [f"-t tmpfs -o mode=1777 tmpfs {root}/{volume}" for volume in VOLUMES]
            further = ["ip link set lo up", f"install -m 644 {config} {root}{CONFIG}"]
        else:
            env = self.args | self.run_env | self.env
            mounts, further = kernel + [f"--bind -o ro {source} {root}{source}" for source in self.binds], []
        users = [line.split(":") for line in (root / "etc/passwd").read_text().splitlines()]
        home = next((entry[5] for entry in users if entry[2] == self.user.split(":")[0]), "/")
        enter = ["chroot", f"--userspec={self.user}", "--groups=", str(root), "/usr/bin/env", "-i"]
        enter += [f"{name}={value}" for name, value in ({"HOME": home} | env).items()]
        enter += ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.workdir, *command]
        script = ["set -e", *("mount " + words for words in mounts), *further, "exec " + shlex.join(enter)]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *(["--net"] if config else [])]
        return subprocess.run(
            [*namespaces, "/bin/sh", "-c", "\n".join(script)], check=False, text=True, timeout=LIMIT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if config else sys.stderr, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def mib(self) -> float:
        done = subprocess.run(["du", "-sxk", self.root], capture_output=True, check=True)
        return int(done.stdout.split()[0]) / 1024


def make_base(image: Image, base: str, options: argparse.Namespace) -> None:
    """What stands in for the base image: the same Debian and Python X.Y, and `python` on the PATH."""
    found = BASE.fullmatch(base)
    if found is None:
        raise BuildError(f"nothing stands in for the base image {base}")
    python, suite = found.groups()
    command = ["debootstrap", "--variant=minbase", suite, str(image.root), *options.mirror]
    subprocess.run(command, stdout=sys.stderr, check=True)
    (image.root / "etc/hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")  # an engine writes it too
    (image.root / "etc/apt/apt.conf.d/docker-clean").write_text(NO_APT_CACHE)
    packages = f"python{python}-venv ca-certificates netbase tzdata"
    image.apply("RUN", f"apt-get -qq update && apt-get -qq install -y --no-install-recommends {packages}", {})
    image.apply("RUN", "apt-get clean && rm -rf /var/lib/apt/lists/*", {})
    (image.root / "usr/local/bin/python").symlink_to(f"/usr/bin/python{python}")
    (image.root / "runs").mkdir()  # as an engine makes what a volume is mounted on
    for source in options.bind:
        point = image.root / str(source).lstrip("/")
        (point if source.is_dir() else point.parent).mkdir(parents=True, exist_ok=True)
        if source.is_file():
            point.touch()
    image.binds, image.run_env = options.bind, {name: os.environ[name] for name in options.env}


def build(image: Image, options: argparse.Namespace) -> dict[str, Any]:
    """Carries out every step, and says what each took and added."""
    build_args = dict(pair.split("=", 1) for pair in options.build_arg)
    base, chain = stage_chain(read_dockerfile((ROOT / "Dockerfile").read_text()), options.target, build_args)
    make_base(image, base, options)
    sizes, steps = [image.mib()], list[dict[str, Any]]()
    for name, text in chain:
        began = time.monotonic()
        image.apply(name, text, build_args)
        seconds = round(time.monotonic() - began, 1)
        sizes.append(image.mib())
        steps.append({"seconds": seconds, "mib": round(sizes[-1] - sizes[-2], 1), "step": f"{name} {text}"})
        print(*steps[-1].values(), sep="  ", file=sys.stderr)
    return {
        "base": base,
        "stand_in_mib": round(sizes[0]),
        "seconds": round(sum(step["seconds"] for step in steps), 1),
        "mib": round(sizes[-1] - sizes[0]),
        "user": image.user,
        "steps": steps,
    }


def try_out(image: Image, config: Path) -> list[dict[str, Any]]:
    """What the image's commands say and how they end."""
    results = []
    checks = ["cat /etc/debian_version", "python --version", "id", READ_ONLY, DOCTOR, PIPELINE]
    for command in [image.command, *(["sh", "-c", check] for check in checks)]:
        began = time.monotonic()
        done = image.start(command, config)
        seconds = round(time.monotonic() - began, 1)
        result = {"seconds": seconds, "exit_code": done.returncode, "command": shlex.join(command)}
        print(*result.values(), done.stdout, sep="  ", file=sys.stderr)
        results.append(result | {"said": done.stdout.splitlines()})
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--root", type=Path, required=True, help="a folder that is made, and deleted at the end")
    add("--target", default="cpu")
    add("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    add("--env", action="append", default=[], metavar="NAME", help="of this machine, for RUN")
    add("--bind", action="append", default=[], type=Path, help="an absolute path of this machine, for RUN")
    add("--mirror", nargs=1, default=[], help="of Debian; debootstrap's own if left out")
    add("--config", type=Path, default=ROOT / "tests/e2e/tiny.yaml", help="whose pipeline is run")
    add("--keep", action="store_true", help="leave the root where it is")
    options = parser.parse_args()
    os.umask(0o022)
    image = Image(options.root.resolve())
    image.root.mkdir(parents=True)
    try:
        summary = build(image, options)
        summary["commands"] = try_out(image, options.config.resolve())
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(image.root)
    print(json.dumps(summary, indent=1))
    return int(any(result["exit_code"] for result in summary["commands"]))


if __name__ == "__main__":
    sys.exit(main())
