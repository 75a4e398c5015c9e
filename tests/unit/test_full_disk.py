"""What grows line by line stops cleanly on a full disk, and goes on with more room."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch

from cluster.checkpoint import save_state
from jobs.pipeline import locked
from jobs.run import Run
from r4t.config import Config
from r4t.errors import UserError
from r4t.full_disk import LineFile
from r4t.tracking import read_metrics


def _fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    return filler


def test_a_line_is_whole_or_absent(small_disk: Path) -> None:
    path = small_disk / "lines"
    lines = LineFile(path)
    lines.append("first")
    filler = _fill(small_disk)
    long = "x" * 6000  # the page that "first" began has room for its beginning
    with pytest.raises(UserError, match=r"the disk is full: .*lines was not written"):
        lines.append(long)
    assert path.read_text() == "first\n"
    filler.unlink()
    lines.append(long)
    lines.close()
    assert path.read_text() == f"first\n{long}\n"


def test_a_run_names_the_full_disk_and_its_numbers_go_on_afterwards(small_disk: Path) -> None:
    run = Run(small_disk, Config(name="x"))
    run.log("folm", 1, {"reward": 0.5})
    filler = _fill(small_disk)
    with pytest.raises(UserError, match=r"the disk is full: .*metrics\.jsonl"):
        run.log("folm", 2, {f"reward/{place}": 0.5 for place in range(400)})
    with pytest.raises(UserError, match=r"the disk is full: .*log\.txt"):
        run.say("x" * 5000)
    filler.unlink()
    run.log("folm", 3, {"reward": 0.5})
    run.close()
    assert [line["step"] for line in read_metrics(small_disk / "metrics.jsonl")] == [1, 3]


def test_a_run_that_cannot_be_locked_for_lack_of_space_says_so(small_disk: Path) -> None:
    (small_disk / "run").mkdir()
    _fill(small_disk)
    with pytest.raises(UserError, match="the disk is full"), locked(small_disk / "run"):
        pass


def test_tensors_that_find_no_room_are_the_same_one_error(small_disk: Path) -> None:
    _fill(small_disk)
    module = torch.nn.Linear(64, 64)
    optimizer = torch.optim.SGD(module.parameters())
    with pytest.raises(UserError, match=r"the disk is full: .*rank-0\.safetensors was not written"):
        save_state(small_disk, module, optimizer, zero_stage=0, rank=0)
