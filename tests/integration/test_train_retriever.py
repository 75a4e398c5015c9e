"""The retriever stage with real DeepSpeed ranks in Ray actors."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_run import NAMES, TRAIN, make_run, make_sets, settings

from cluster.session import session
from jobs import train_retriever
from jobs.run import Run
from r4t.catalog.dataset import load_dataset
from r4t.config import Config
from r4t.diffusion.checkpoint import load_denoiser, load_sampler_settings
from r4t.diffusion.sampler import SetSampler
from r4t.lineage import is_finished, read_manifest, verify

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


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with session(settings()):
        yield


def run_of(folder: Path, config: Config) -> Run:
    run = make_run(folder, config)
    make_sets(run, folder / "sets")
    make_sets(run, folder / "sets" / "zero_shot")
    return run


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
        assert torch.allclose(weights(run)[name], expected, atol=1e-6), name


def test_two_ranks_train_together(tmp_path: Path):
    config = settings(ranks=2, steps=20, checkpoint_every=10)
    run = run_of(tmp_path / "run", config)
    train_retriever.train_retrievers(config, run, [("retriever", run.folder / "sets", run.folder / "retriever")])
    assert verify(run.folder / "retriever") == []
    assert "held_out_loss" in (run.folder / "metrics.jsonl").read_text()
