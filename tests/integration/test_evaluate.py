"""The evaluate, report and retrieve jobs on a small run: with scripted policies, and with a real engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs import evaluate, report
from jobs.policies import PolicySwitch, available_methods, check_methods
from jobs.retrieve import as_json, retrieve
from jobs.run import Run, save_config
from r4t.catalog.dataset import FILES, load_dataset, save_dataset
from r4t.catalog.encoders import encoder_record, load_encoder
from r4t.catalog.source import Catalog, Item
from r4t.config import Config, parse_config
from r4t.diffusion.checkpoint import save_denoiser
from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.errors import UserError
from r4t.evaluation.evaluate import METHODS
from r4t.fanout import format_answer
from r4t.lineage import read_json, write_manifest
from r4t.methods import Diffusion
from r4t.methods.build import UNTRAINED
from r4t.policy import create_policy, train_tokenizer
from r4t.types import Completion, Query
from r4t.verify import verify

KINDS = ("apple", "carrot", "lemon", "tomato", "walnut", "ginger", "cheese", "bean")
BASES = ("soup", "cake", "salad", "bread", "pie", "stew", "juice")
MOODS = ("warm winter", "light summer", "festive", "quick", "rustic", "elegant", "spicy", "childhood")
MEALS = ("dinner", "lunch", "treat", "picnic")
NAMES = [f"{kind} {base}" for kind in KINDS for base in BASES]


def settings(task: str) -> Config:
    return parse_config(
        {
            "task": task,
            "fanout": {"k": 4, "n": 1 if task == "oar" else 2},
            "encoder": {"dim": 64},
            "objective": {"kind": "content"}
            if task == "oar"
            else {"kind": "coverage", "coverage_weighting": "inverse_frequency"},
            "policy": {"vocab_size": 384, "hidden": 32, "layers": 1, "heads": 1, "max_length": 96},
            "rl": {"max_tokens": 24},
            "rollout": {"max_num_seqs": 16, "kv_cache_gib": 0.05, "threads": 1},
            "retriever": {"rows": 6, "hidden": 32, "mlp": 32, "layers": 1, "heads": 2, "noise_dim": 16},
            "evaluate": {
                "seeds": [0, 1],
                "latency_batches": [1, 2],
                "latency_repeats": 2,
                "best_of": 3,
                "diffusion_reference": True,
            },
        }
    )


def make_run(folder: Path, task: str) -> Run:
    """A run whose prepare, folm and retriever folders hold a real small catalogue, real policies and real denoisers."""
    config = settings(task)
    run = Run(folder, config)
    save_config(folder, config)
    texts = [f"{mood} {meal}" for mood in MOODS for meal in MEALS]
    queries = [
        Query(
            query_id=str(i),
            text=text,
            split="train" if i < 20 else "test",
            references=tuple(range(i, i + 4)) if task == "wscr" else (),
        )
        for i, text in enumerate(texts)
    ]
    encoder = load_encoder("wordllama", 64)
    items = [Item(item_id=f"i{row}", text=name, name=name) for row, name in enumerate(NAMES)]
    prepare = run.stage_folder("prepare")
    catalog = Catalog(items=items, queries=queries, dropped={})
    save_dataset(prepare, catalog, encoder.encode(NAMES), encoder.encode(texts))
    made_by = {"encoder": encoder_record(encoder, config.encoder)}
    write_manifest(prepare, stage="prepare", config={}, inputs={}, files=FILES, metrics={}, extra=made_by)
    tokenizer = train_tokenizer([*NAMES, *texts], config.policy.vocab_size)
    for seed, name in enumerate(("warm_start", "policy")):
        create_policy(run.stage_folder("folm") / name, tokenizer, config.policy, seed)
    for seed, name in enumerate(("retriever", "retriever/zero_shot", "distill")):
        torch.manual_seed(seed)
        denoiser = SetDenoiser(DenoiserConfig.of(config.retriever, 64, 0.125))
        with torch.no_grad():
            for parameter in denoiser.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        save_denoiser(folder / name, denoiser, config.retriever.sampler)
    return run


class ScriptedEngine:
    """Answers from a fixed vocabulary; `policy` names different dishes, `warm_start` repeats itself more."""

    def __init__(self) -> None:
        self.version = 0
        self.asked: list[tuple[int, int, tuple[int, ...]]] = []

    def generate(
        self, queries: Sequence[tuple[int, str]], samples: int, temperature: float, seed: int
    ) -> list[Completion]:
        assert temperature == 1.0
        self.asked.append((self.version, samples, tuple(row for row, _ in queries)))
        return [self._answer(row, sample, seed) for row, _ in queries for sample in range(samples)]

    def swap(self, weights: Path, version: int) -> None:
        assert weights.is_file()
        self.version = version

    def _answer(self, row: int, sample: int, seed: int) -> Completion:
        rng = np.random.default_rng((seed, row, sample))
        names = [NAMES[i] for i in rng.choice(len(NAMES) if self.version else 3, 4)]
        broken = row % 10 == 1 and sample == 0
        return Completion(
            query=row,
            sample=sample,
            prompt_ids=(),
            token_ids=(),
            logprobs=(),
            text="no list" if broken else format_answer(names),
            policy_version=self.version,
            finished=True,
        )


@pytest.fixture(scope="module", params=["oar", "wscr"])
def evaluated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    run = make_run(tmp_path_factory.mktemp(request.param), request.param)
    engine = ScriptedEngine()
    policies = PolicySwitch(run.folder / "folm", engine.generate, engine.swap)
    evaluate.evaluate(run.config, run, available_methods(run.folder, run.config), policies)
    report.main(run.config, run)
    yield run, engine, read_json(run.folder / "evaluate" / "metrics.json")
    run.close()


def test_c51_all_methods_answer_the_same_queries_with_the_same_k_and_database(evaluated: Any) -> None:
    run, engine, metrics = evaluated
    assert tuple(metrics["methods"]) == METHODS
    assert (metrics["k"], metrics["n_queries"], metrics["database_items"]) == (4, 12, len(NAMES))
    assert all(cells["distinct_items"]["n"] == 12 for cells in metrics["methods"].values())
    test_rows = tuple(load_dataset(run.folder / "prepare").split("test").tolist())
    full = [call for call in engine.asked if len(call[2]) == 12]
    assert {rows for _, _, rows in full} == {test_rows}
    assert {(version, samples) for version, samples, _ in full} == {(0, 1), (0, 3), (1, 1)}


def test_c51_cells_hold_means_errors_and_the_metrics_of_their_task(evaluated: Any) -> None:
    run, _, metrics = evaluated
    folm = metrics["methods"]["r4t_folm"]
    assert {"mean", "std", "stderr", "n"} == set(folm["reward"])
    assert set(folm["judge"]) == {"diversity", "alignment", "groundedness"}
    assert ("recall" in folm) == ("vendi_runs" in folm) == (run.config.task == "wscr")
    assert metrics["methods"]["r4t_folm"]["distinct_overall"] > metrics["methods"]["zero_shot"]["distinct_overall"]
    if run.config.task == "wscr":
        assert metrics["methods"]["random"]["recall_floor"] == pytest.approx(4 * 2 / len(NAMES), abs=1e-6)
        assert folm["reward"]["mean"] == folm["recall_weighted"]["mean"]
        assert "vendi_runs" not in metrics["methods"]["mmr"]


def test_c58_only_methods_that_write_text_have_a_groundedness_cell(evaluated: Any) -> None:
    _, _, metrics = evaluated
    with_text = {name for name, cells in metrics["methods"].items() if "groundedness" in cells}
    assert with_text == {"zero_shot", "best_of_n", "r4t_folm"}
    assert {name for name, cells in metrics["methods"].items() if "manifold" in cells} == {
        "r4t_diffusion",
        "r4t_diffusion_reference",
        "r4t_distilled",
        "zero_shot_diffusion",
    }
    assert "groundedness" not in metrics["methods"]["r4t_diffusion"]["judge"]


def test_invalid_answers_are_counted_and_best_of_n_avoids_them(evaluated: Any) -> None:
    _, _, metrics = evaluated
    assert metrics["methods"]["zero_shot"]["invalid"]["mean"] == pytest.approx(2 / 12, abs=1e-6)
    assert metrics["methods"]["best_of_n"]["invalid"]["mean"] == 0.0
    assert "invalid" not in metrics["methods"]["mmr"]


def test_c56_latency_has_both_percentiles_per_batch_for_the_timed_methods(evaluated: Any) -> None:
    _, _, metrics = evaluated
    timed = {name: cells["latency_ms"] for name, cells in metrics["methods"].items() if "latency_ms" in cells}
    assert set(timed) == set(evaluate.TIMED)
    for batches in timed.values():
        assert set(batches) == {"1", "2"}
        assert all(0 < cell["p50"] <= cell["p95"] for cell in batches.values())


def test_c60_deviations_and_checks_are_written(evaluated: Any) -> None:
    run, _, metrics = evaluated
    assert any(line.startswith("Encoder: wordllama") for line in metrics["deviations"])
    assert any("Judge" in line for line in metrics["deviations"])
    names = [check["name"] for check in metrics["checks"]]
    assert "reward: r4t_folm above zero_shot by 3 standard errors" in names
    assert any(name.startswith("recall_weighted") for name in names) == (run.config.task == "wscr")


def test_evaluation_repeats_itself_exactly(evaluated: Any, tmp_path: Path) -> None:
    run, _, metrics = evaluated
    twin = make_run(tmp_path, run.config.task)
    engine = ScriptedEngine()
    names = available_methods(twin.folder, twin.config)
    evaluate.evaluate(twin.config, twin, names, PolicySwitch(twin.folder / "folm", engine.generate, engine.swap))
    again = read_json(tmp_path / "evaluate" / "metrics.json")
    for cells in (*metrics["methods"].values(), *again["methods"].values()):
        cells.pop("latency_ms", None)
    assert again["methods"] == metrics["methods"]
    assert again["against_zero_shot"] == metrics["against_zero_shot"]


def test_evaluation_and_report_leave_verifiable_files(evaluated: Any) -> None:
    run, _, _ = evaluated
    assert verify(run.folder) == []
    page = (run.folder / "report" / "index.html").read_text()
    assert "R4T-Diffusion" in page
    samples = read_json(run.folder / "evaluate" / "samples.json")
    assert len(samples) == 10
    assert all(set(sample["methods"]) == set(METHODS) for sample in samples)


def test_a_finished_evaluation_is_not_repeated(evaluated: Any) -> None:
    run, _, _ = evaluated
    before = (run.folder / "evaluate" / "metrics.json").stat().st_mtime_ns
    page = (run.folder / "report" / "index.html").stat().st_mtime_ns
    evaluate.main(run.config, run)
    report.main(run.config, run)
    assert (run.folder / "evaluate" / "metrics.json").stat().st_mtime_ns == before
    assert (run.folder / "report" / "index.html").stat().st_mtime_ns == page


def test_methods_that_cannot_run_name_the_stage_or_the_nearest_name(evaluated: Any, tmp_path: Path) -> None:
    run, _, _ = evaluated
    with pytest.raises(UserError, match="did you mean 'r4t_folm'"):
        check_methods(["r4t_form"], run.folder)
    with pytest.raises(UserError, match="run the stage 'retriever'"):
        check_methods(["r4t_diffusion"], tmp_path)
    assert available_methods(tmp_path, run.config) == list(UNTRAINED)


def test_retrieve_prints_different_items_of_the_catalogue(evaluated: Any) -> None:
    run, _, _ = evaluated
    for method in ("r4t_diffusion", "no_fanout", "mmr"):
        found = retrieve(run.folder, "light summer lunch", 3, method)
        assert 1 <= len(found) <= 3
        assert len({hit.item_id for hit in found}) == len(found)
        assert all(hit.name in NAMES for hit in found)
    assert [hit.direction for hit in retrieve(run.folder, "lunch", 2, "no_fanout")] == ["", ""]
    assert as_json("lunch", "mmr", found)["items"][0]["item_id"] == found[0].item_id


def test_retrieve_refuses_what_it_cannot_do(evaluated: Any, tmp_path: Path) -> None:
    run, _, _ = evaluated
    with pytest.raises(UserError, match="query is empty"):
        retrieve(run.folder, "  ")
    with pytest.raises(UserError, match=r"sets of 1 to 4 items"):
        retrieve(run.folder, "lunch", 5)
    with pytest.raises(UserError, match="no run directory"):
        retrieve(tmp_path, "lunch")


def test_c48_c50_compiled_retrieval_repeats_with_its_seed_and_loads_no_language_model(evaluated: Any) -> None:
    run, _, _ = evaluated
    code = (
        "import sys; from pathlib import Path; from jobs.retrieve import retrieve\n"
        f"sets = [[h.item_id for h in retrieve(Path({str(run.folder)!r}), 'lunch', seed=s)] for s in (0, 0, 1)]\n"
        "assert sets[0] == sets[1] != sets[2], sets\n"
        "print([m for m in ('vllm', 'ray', 'deepspeed', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_retriever_with_fewer_rows_than_k_is_refused(evaluated: Any) -> None:
    run, _, _ = evaluated
    from jobs.policies import build_methods

    dataset, encoder = load_dataset(run.folder / "prepare"), load_encoder("wordllama", 64)
    method = build_methods(["r4t_diffusion"], run.config, run.folder, dataset, encoder)["r4t_diffusion"]
    assert isinstance(method, Diffusion)
    with pytest.raises(ValueError, match=r"fewer than fanout\.k"):
        Diffusion("r4t_diffusion", method.sampler, method.index, k=7, n=1)


@pytest.mark.slow
def test_one_rollout_worker_serves_both_policies(tmp_path: Path) -> None:
    import ray

    run = make_run(tmp_path, "oar")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        evaluate.main(run.config, run)
    finally:
        ray.shutdown()
    metrics = read_json(tmp_path / "evaluate" / "metrics.json")
    assert tuple(metrics["methods"]) == METHODS
    assert metrics["methods"]["r4t_folm"]["invalid"]["mean"] > 0.5  # random weights write no list
    assert metrics["methods"]["r4t_folm"]["latency_ms"]["1"]["p50"] > 0
    assert verify(tmp_path) == []
