"""The retriever stage with real DeepSpeed ranks in Ray actors."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_run import NAMES, TRAIN, make_run, make_sets, settings
from support import flip

from jobs import denoiser_training, train_retriever
from jobs.run import Run
from r4t.catalog.dataset import load_dataset
from r4t.config import Config
from r4t.diffusion.checkpoint import load_denoiser, load_sampler_settings
from r4t.diffusion.sampler import SetSampler
from r4t.diffusion.training import validation_losses
from r4t.errors import UserError
from r4t.lineage import is_finished, read_manifest
from r4t.sets import load_targets
from r4t.tracking import read_metrics
from r4t.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]

DRIVER = """
import sys
from pathlib import Path
from cluster.session import session
from jobs import train_retriever
from jobs.run import Run
from r4t.config import Config

folder = Path(sys.argv[1])
config = Config.model_validate_json((folder / "config.json").read_text())
with session(config):
    train_retriever.main(config, Run(folder, config))
"""


def run_of(folder: Path, config: Config) -> Run:
    run = make_run(folder, config)
    make_sets(run, folder / "sets")
    make_sets(run, folder / "sets" / "zero_shot")
    return run


def train_one(run: Run, config: Config) -> None:
    run.config = config
    train_retriever.train_retrievers(config, run, [("retriever", run.folder / "sets", run.folder / "retriever")])


def interrupt_after_checkpoint(monkeypatch: pytest.MonkeyPatch, run: Run, config: Config) -> Path:
    """Trains until a checkpoint is written, then ends as Ctrl-C would. Returns the checkpoint."""
    write = denoiser_training._checkpoint

    def interrupt(*args: Any) -> None:
        write(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(denoiser_training, "_checkpoint", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_one(run, config)
    (found,) = (run.folder / "retriever" / "checkpoints").glob("step-*")
    return found


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "retriever" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = settings()
    run = run_of(tmp_path_factory.mktemp("finished"), config)
    train_retriever.main(config, run)
    return run


def test_stage_leaves_two_retrievers_with_manifests(finished: Run):
    for name in ("retriever", "retriever/zero_shot"):
        folder = finished.folder / name
        assert verify(folder) == []
        manifest = read_manifest(folder)
        assert manifest is not None
        metrics = manifest["metrics"]
        assert metrics["training_sets"] + metrics["held_out_sets"] == TRAIN * 4
        assert metrics["removed_sets"] == {"unparsable": 0}
        assert 0 < metrics["held_out_loss"] < 2
        bands = [value for key, value in metrics.items() if key.startswith("held_out_loss/")]
        assert metrics["held_out_loss"] == pytest.approx(sum(bands) / 4, rel=0.1)
        assert {"held_out/reward", "held_out/diversity", "held_out/content_alignment"} <= metrics.keys()
        assert abs(metrics["sigma_data"] - 0.125) < 0.005
        assert not (folder / "checkpoints").exists()
    train_retriever.main(finished.config, finished)
    assert (finished.folder / "log.txt").read_text().count("already finished") == 2


def test_trained_retriever_samples_and_differs_from_its_start(finished: Run):
    dataset = load_dataset(finished.folder / "prepare")
    denoiser = load_denoiser(finished.folder / "retriever", dataset.item_vectors.shape[1])
    sampler = SetSampler(denoiser, load_sampler_settings(finished.folder / "retriever"))
    sets = sampler.sample(torch.from_numpy(dataset.query_vectors), torch.Generator().manual_seed(0)).sets
    assert sets.shape == (len(dataset.queries), 5, 64)
    assert torch.isfinite(sets).all()
    assert denoiser.rows_out.weight.abs().max() > 0  # zero before training
    assert len(NAMES) == len(dataset.item_ids)


def test_killed_training_resumes_at_its_step_and_ends_with_the_same_weights(finished: Run, tmp_path: Path):
    config = settings()
    run = run_of(tmp_path / "run", config)
    (run.folder / "config.json").write_text(config.model_dump_json())
    (run.folder / "driver.py").write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, str(run.folder / "driver.py"), str(run.folder)])
    checkpoints = run.folder / "retriever" / "checkpoints"
    deadline = time.monotonic() + 240
    while not list(checkpoints.glob("step-*")):
        assert driver.poll() is None, "the run ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not is_finished(run.folder / "retriever")

    train_retriever.main(config, run)
    assert "resumed at step" in (run.folder / "log.txt").read_text()
    assert verify(run.folder / "retriever") == []
    for name, expected in weights(finished).items():
        assert torch.equal(weights(run)[name], expected), name


def test_a_damaged_checkpoint_is_told_of_and_made_again(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = run_of(tmp_path / "run", settings())
    checkpoint = interrupt_after_checkpoint(monkeypatch, run, settings())
    flip(checkpoint / "model.safetensors", -1)  # in a weight, where safetensors itself sees nothing
    train_one(run, settings())
    assert f"{checkpoint} is damaged (model.safetensors)" in (run.folder / "log.txt").read_text()
    for name, expected in weights(finished).items():
        assert torch.equal(weights(run)[name], expected), name


def test_training_that_diverges_names_the_batch_and_keeps_its_checkpoint(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = run_of(tmp_path / "run", settings())
    checkpoint = interrupt_after_checkpoint(monkeypatch, run, settings())
    with pytest.raises(UserError, match=r"step 2\d .*queries '\w+ \w+'.*retriever\.lr") as error:
        train_one(run, settings(lr=1e30))
    assert "checkpoint is kept" in str(error.value)
    assert checkpoint.is_dir()
    assert not is_finished(run.folder / "retriever")
    train_one(run, settings())
    for name, expected in weights(finished).items():
        assert torch.equal(weights(run)[name], expected), name


def test_ranks_share_the_optimiser_at_any_zero_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Interrupted at stage 2 and resumed at stage 1, two ranks end where two ranks end without ZeRO."""
    given = {"ranks": 2, "steps": 20, "checkpoint_every": 10, "dtype": "bfloat16"}
    plain, cut = (run_of(tmp_path / name, settings(**given)) for name in ("plain", "cut"))
    train_one(plain, settings(**given))
    checkpoint = interrupt_after_checkpoint(monkeypatch, cut, settings(**given, zero_stage=2))
    assert len(list(checkpoint.glob("rank-*.safetensors"))) == 2
    train_one(cut, settings(**given, zero_stage=1))
    assert verify(cut.folder / "retriever") == []
    for name, expected in weights(plain).items():
        assert torch.allclose(weights(cut)[name], expected, atol=1e-5), name


def test_early_stop_keeps_the_best_network(tmp_path: Path):
    """A learning rate that grows until it destroys the network: the best validation comes early."""
    config = settings(lr=3.0, warmup_steps=60, early_stop=2, validate_every=5)
    run = run_of(tmp_path / "run", config)
    train_one(run, config)
    folder = run.folder / "retriever"
    manifest = read_manifest(folder)
    assert manifest is not None
    best, last = manifest["metrics"]["best_step"], manifest["metrics"]["steps"]
    assert last == best + 10 < 60
    lines = [line for line in read_metrics(run.folder / "metrics.jsonl") if line["stage"] == "retriever"]
    loss = {line["step"]: line["values"]["held_out_loss"] for line in lines}
    assert loss[best] == min(loss.values()) < loss[last]
    dataset = load_dataset(run.folder / "prepare")
    _, held_out = load_targets(run.folder / "sets", dataset, config).split(0.2, config.seed)
    kept = validation_losses(load_denoiser(folder), held_out, seed=config.seed)
    assert kept["held_out_loss"] == pytest.approx(loss[best], rel=1e-5)
    assert verify(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "manifest.json", "model.safetensors"]
