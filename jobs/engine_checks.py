"""`r4t doctor` has every engine work for a moment: an answer, a training step, a round trip of weights, a search."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from jobs.checks import Check

Part = Literal["learner", "vllm", "hf", "faiss"]
TIMEOUT = 300.0  # seconds of one part; a busy machine takes several times what a quiet one does
NAMES: dict[Part, str] = {"learner": "DeepSpeed", "vllm": "vLLM", "hf": "transformers", "faiss": "FAISS"}
FIXES: dict[Part, str] = {
    "learner": "DeepSpeed trains the policy: rm -rf .venv && make install restores it; `DS_ACCELERATOR` must not name"
    " another device, and the ranks meet on a free port of this machine",
    "vllm": "--set rollout.engine=hf samples with transformers on a CPU, slower and of the same law; else rm -rf .venv"
    " && make install (or make gpu)",
    "hf": "transformers loads the policy: rm -rf .venv && make install restores it",
    "faiss": "index.kind exact needs no FAISS; else rm -rf .venv && make install",
}


def engine_checks(device: str, timeout: float = TIMEOUT) -> list[Check]:
    """The learner first, whose weights the others then load, side by side. vLLM only where it can run."""
    with tempfile.TemporaryDirectory(prefix="r4t-doctor-") as name:
        folder = Path(name)
        trained = _check("learner", folder, device, timeout)
        rest: list[Part] = [*(["vllm"] if _has_vllm(device) else []), "hf", "faiss"]  # type: ignore[list-item]
        if not trained.ok:
            rest = ["faiss"]  # without weights there is nothing to load
        with ThreadPoolExecutor(len(rest)) as pool:
            return [trained, *pool.map(lambda part: _check(part, folder, device, timeout), rest)]


def _check(part: Part, folder: Path, device: str, timeout: float) -> Check:
    began = time.monotonic()
    problem, said = _run(part, folder, device, timeout)
    seconds = time.monotonic() - began
    found = f"{problem or said} ({seconds:.0f} s)"
    return Check(name=NAMES[part], ok=not problem, found=found, fix=FIXES[part])


def _run(part: Part, folder: Path, device: str, timeout: float) -> tuple[str, str]:
    """What went wrong, or an empty text and what was found."""
    command = [sys.executable, "-m", "cluster.engine_check", part, str(folder), device]
    try:
        done = subprocess.run(
            command, env=_environment(part, device), capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {timeout:g} s", ""
    if done.returncode:
        return _last(done.stderr) or f"ended with code {done.returncode}", ""
    return "", _last(done.stdout)


def _last(text: str) -> str:
    """The last line that says what went wrong, and not what a library says while it shuts down."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if line.split(":")[0].endswith(("Error", "Exception")) and line[0] != " "]
    return (errors or lines or [""])[-1].strip()[:500]


def _environment(part: Part, device: str) -> dict[str, str]:
    """As `cluster.launch` starts the actor that does the same work."""
    from cluster.devices import role_environment
    from cluster.ports import free_port
    from r4t.config import parse_config

    config = parse_config({"cluster": {"device": device}, "learner": {"ranks": 1}})
    role: Literal["rollout", "learner"] = "rollout" if part in ("vllm", "hf") else "learner"
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port("127.0.0.1"))}
    ranks = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"} | place
    return os.environ | role_environment(role, config) | (ranks if part == "learner" else {})


def _has_vllm(device: str) -> bool:
    from cluster.engine import vllm_problem

    return not vllm_problem(device)
