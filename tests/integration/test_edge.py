"""`locks/edge.txt` is enough for `r4t serve DIR --lite`: it is served with nothing else to import."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest
from serve_process import served
from serving_fixtures import exported
from support import ROOT, environment

from r4t.client import Client
from r4t.retriever import R4TRetriever

pytestmark = pytest.mark.service

BARE = (sys.executable, "-S")  # without the environment's own packages


def pins(lock: str) -> dict[str, str]:
    lines = [line.strip() for line in (ROOT / "locks" / f"{lock}.txt").read_text().splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a Python that finds the distributions of locks/edge.txt, R4T and no others."""
    packages = tmp_path_factory.mktemp("edge")
    for name in pins("edge"):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            (packages / top).symlink_to(Path(str(found.locate_file(top))))
    return {"PYTHONPATH": f"{packages}:{ROOT}", "R4T_SERVE_KEY": "sesame"}


def test_the_pins_are_those_of_the_cpu_lock() -> None:
    assert pins("edge").items() <= pins("cpu").items()
    assert {"torch", "ray", "transformers"} & set(pins("edge")) == set()


def test_an_exported_folder_is_served_with_the_edge_lock_alone(edge: dict[str, str], tmp_path: Path) -> None:
    folder = exported(tmp_path)
    expected = R4TRetriever.from_pretrained(folder, engine="onnx", threads=1).retrieve("leek soup", 7, seed=4)[0]
    absent = subprocess.run([*BARE, "-c", "import torch"], capture_output=True, text=True, env=environment(edge))
    assert "No module named 'torch'" in absent.stderr
    program = (*BARE, "-c", "from jobs.cli import entry; entry()")
    with served(folder, "--lite", "--port", 0, env=edge, program=program) as (url, process):
        assert httpx.get(f"{url}/v1/methods").status_code == 401
        with Client(url, key="sesame") as client:
            for method in client.methods().methods:
                assert len(client.retrieve("leek soup", 3, method=method.name).sets[0].items) == 3
            found = client.retrieve("leek soup", 7, seed=4)
        for path in ("v1/run", "metrics", "openapi.json", ""):
            asked = httpx.get(f"{url}/{path}", headers={"authorization": "Bearer sesame"})
            assert asked.status_code == 200, path
    assert process.returncode == 0
    assert [item.item_id for item in found.sets[0].items] == [item.item_id for item in expected.items]


def test_a_mistake_and_help_are_readable_there(edge: dict[str, str], tmp_path: Path) -> None:
    program = [*BARE, "-c", "from jobs.cli import entry; entry()", "serve"]
    for args, code, said in (
        (["--help"], 0, "--lite"),
        ([str(tmp_path), "--lite"], 2, "neither a run nor an exported"),
    ):
        done = subprocess.run([*program, *args], capture_output=True, text=True, env=environment(edge), timeout=120)
        assert done.returncode == code, done.stderr
        assert said in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
