"""The distill stage with a real DeepSpeed rank: a student from a teacher that nobody trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_run import make_run, make_sets, settings

from jobs import denoiser_training, distill
from jobs import run as run_module
from jobs.export import export
from jobs.pipeline import check_same_config
from jobs.policies import PRODUCTS, available_methods, build_methods
from jobs.retrieve import retrieve
from jobs.run import Run, save_config
from jobs.serving_folder import served_folders
from r4t.catalog.dataset import load_dataset
from r4t.catalog.encoders import load_encoder
from r4t.config import Config, Serve
from r4t.diffusion.checkpoint import load_denoiser, save_denoiser
from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.errors import UserError
from r4t.lineage import read_manifest, write_manifest
from r4t.methods import Diffusion, QueryBatch
from r4t.retriever.files import read_description
from r4t.serving.asking import asked_of, read_request
from r4t.serving.version import open_version
from r4t.tracking import read_metrics
from r4t.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
GIVEN = {
    "calls": [1, 2],
    "endpoints": 1.0,
    "steps": 30,
    "batch": 8,
    "validate_every": 10,
    "checkpoint_every": 10,
    "teacher_steps": 3,
}


def configured(**changes: Any) -> Config:
    return settings().model_copy(update={"distill": Config.model_validate({"distill": GIVEN | changes}).distill})


def run_of(folder: Path, config: Config) -> Run:
    run = make_run(folder, config)
    make_sets(run, folder / "sets")
    torch.manual_seed(0)
    teacher = SetDenoiser(DenoiserConfig.of(config.retriever, 64, 0.125))
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_denoiser(folder / "retriever", teacher, config.retriever.sampler)
    files = ["config.json", "model.safetensors"]
    inputs = {"sets": folder / "sets"}
    write_manifest(folder / "retriever", stage="retriever", config={}, inputs=inputs, files=files, metrics={})
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_of(tmp_path_factory.mktemp("distilled"), configured())
    save_config(run.folder, run.config)
    distill.main(run.config, run)
    return run


def test_stage_leaves_a_retriever_of_few_calls(finished: Run) -> None:
    folder = finished.folder / "distill"
    assert verify(finished.folder) == []
    manifest = read_manifest(folder)
    assert manifest is not None
    assert set(manifest["inputs"]) == {"prepare", "sets", "retriever"}
    assert manifest["metrics"]["calls"] == [1, 2]
    assert manifest["metrics"]["guidance"] == 0.1  # the teacher's own
    losses = [line["values"]["held_out_loss"] for line in read_metrics(finished.folder / "metrics.jsonl")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    student, teacher = (load_denoiser(finished.folder / name, 64) for name in ("distill", "retriever"))
    assert student.config == teacher.config
    assert not torch.equal(student.rows_out.weight, teacher.rows_out.weight)
    distill.main(finished.config, finished)
    assert "distill: already finished" in (finished.folder / "log.txt").read_text()


def test_everything_downstream_takes_it_for_a_method(finished: Run) -> None:
    assert "r4t_distilled" in available_methods(finished.folder, finished.config)
    dataset = load_dataset(finished.folder / "prepare")
    encoder = load_encoder("wordllama", 64)
    built = build_methods(["r4t_distilled"], finished.config, finished.folder, dataset, encoder)["r4t_distilled"]
    assert isinstance(built, Diffusion)
    assert (built.sampler.nfe, built.sampler.guidance) == (1, 0.0)
    queries = QueryBatch.of_rows(dataset, [0, 1, 2])
    one, again, other = (built.retrieve(queries, seed).items for seed in (0, 0, 1))
    assert one.shape == (3, 4, 1)
    assert (one == again).all()
    assert (one != other).any()


def test_it_is_what_a_run_exports_serves_and_retrieves_with_unless_told_otherwise(
    finished: Run, tmp_path: Path
) -> None:
    run = finished.folder
    calls = {part: read_description(export_to(run, tmp_path / str(part), part)).calls for part in (None, "retriever")}
    assert calls[None] == 1 < calls["retriever"]
    query = load_dataset(run / "prepare").queries[0].text
    found = {method: [hit.item_id for hit in retrieve(run, query, method=method)] for method in (None, *PRODUCTS)}
    assert found[None] == found["r4t_distilled"] != found["r4t_diffusion"]

    version = open_version(served_folders(run, "torch"), "torch", 1)
    assert list(version.methods) == ["no_fanout", "mmr", "r4t_distilled", "r4t_diffusion"]
    for body, answers in (({"query": "mint"}, "r4t_distilled"), ({"query": "mint", "method": "mmr"}, "mmr")):
        (asked,) = asked_of(read_request(json.dumps(body).encode(), Serve()), version)
        assert asked.method == answers
    teacher = open_version([tmp_path / "retriever"], "torch", 1)
    (asked,) = asked_of(read_request(b'{"query": "mint"}', Serve()), teacher)
    assert asked.method == "r4t_diffusion", "an export of the teacher has no student"


def export_to(run: Path, folder: Path, part: str | None) -> Path:
    export(run, folder, part=part)
    return folder


def test_interrupted_distillation_resumes_to_the_same_bits(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path / "run", configured())
    write = denoiser_training._checkpoint

    def interrupt(*args: Any) -> None:
        write(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(denoiser_training, "_checkpoint", interrupt)
        with pytest.raises(KeyboardInterrupt):
            distill.main(run.config, run)
    monkeypatch.setattr(run_module, "LINE_EVERY", 0.0)
    distill.main(run.config, run)
    said = (run.folder / "log.txt").read_text()
    assert "distill: resumed at step 10" in said
    counts = re.findall(rf"distill  (\d+)/{run.config.distill.steps}  about", said)
    assert min(map(int, counts)) > 10, "the bar goes on where the training does"
    found, expected = (load_file(r.folder / "distill" / "model.safetensors") for r in (run, finished))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_students_settings_are_free_until_it_is_made(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"distill\.sets"):
        check_same_config(finished.folder, configured(sets=7.0))
    run = run_of(tmp_path / "run", configured())
    save_config(run.folder, run.config)
    check_same_config(run.folder, configured(sets=7.0))
