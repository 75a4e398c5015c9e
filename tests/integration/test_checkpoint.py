"""Learner checkpoints: the same layout continues bit for bit, another one continues with the same next update."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from r4t.errors import UserError
from tests.integration.rl_fixtures import Group, batch, configuration, group, saved_state

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]


def write(ranks: Group, folder: Path) -> dict[str, torch.Tensor]:
    """One update, a checkpoint, one more update: the weights after it."""
    folder.mkdir()
    ranks("update", batch(), 0, 1e-3)
    ranks("save", folder)
    ranks.weights(folder / "model.safetensors")
    ranks("update", batch(), 1, 1e-3)
    return ranks.weights(folder / "next.safetensors")


def resume(ranks: Group, folder: Path, out: Path) -> dict[str, torch.Tensor]:
    """Restores the checkpoint and takes the same next update."""
    ranks("load", folder)
    for slot in ("master", "exp_avg", "exp_avg_sq", "step"):
        restored, saved = ranks.state(out / slot, slot), saved_state(folder, slot)
        for name, value in saved.items():
            assert torch.equal(restored[name], value), f"{slot} of {name} is restored bit for bit"
    ranks("update", batch(), 1, 1e-3)
    return ranks.weights(out / "next.safetensors")


@pytest.mark.parametrize(
    ("learner", "same"),
    [
        ({"ranks": 2, "zero_stage": 2}, True),
        ({"ranks": 2, "zero_stage": 3}, True),
        ({"ranks": 2, "zero_stage": 0}, False),
        ({"ranks": 1, "zero_stage": 0}, False),
        ({"ranks": 1, "zero_stage": 2}, False),
    ],
    ids=["2-ranks-stage-2", "2-ranks-stage-3", "2-ranks-stage-0", "1-rank-stage-0", "1-rank-stage-2"],
)
def test_a_checkpoint_continues_on_its_own_layout_and_on_others(
    model_dir: Path, tmp_path: Path, learner: dict, same: bool
) -> None:
    config = configuration(**learner)
    with group(config, model_dir) as ranks:
        straight = write(ranks, tmp_path / "saved")
        if same:
            ranks("begin", model_dir, ranks.phase)
            again = resume(ranks, tmp_path / "saved", tmp_path / "again")
            for name, value in straight.items():
                assert torch.equal(value, again[name]), name
    other = {"ranks": 3 - learner["ranks"], "zero_stage": learner["zero_stage"] % 3}
    with group(configuration(**other), model_dir) as ranks:
        moved = resume(ranks, tmp_path / "saved", tmp_path / "moved")
    for name, value in straight.items():
        torch.testing.assert_close(moved[name], value, atol=2e-5, rtol=0)


def test_a_missing_rank_is_named(model_dir: Path, tmp_path: Path) -> None:
    with group(configuration(ranks=2, zero_stage=2), model_dir) as ranks:
        write(ranks, tmp_path / "saved")
        (tmp_path / "saved" / "rank-1.safetensors").unlink()
        with pytest.raises(UserError, match=r"holds \d+ of the \d+ values"):
            ranks("load", tmp_path / "saved")
