"""A policy from another trainer, in Hugging Face format, is taken by the later stages, with its lineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import r4t
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.session import session
from jobs import export_prompts, import_policy, synthesize
from jobs.run import Run, save_config
from r4t.catalog.dataset import load_dataset
from r4t.errors import UserError
from r4t.interop.prompts import prompt_rows
from r4t.lineage import MANIFEST, file_hash, is_finished, read_json, read_manifest, read_tensors, write_sealed
from r4t.policy import create_policy, load_tokenizer, train_tokenizer
from r4t.sealed import RECORD, damage
from r4t.verify import verify
from tests.integration.small_run import NAMES, QUERIES, make_run, settings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A prepared run whose policy is warm-started and not yet trained."""
    folder = tmp_path / "run"
    make_run(folder, settings()).close()
    save_config(folder, settings())
    (folder / "folm" / MANIFEST).unlink()
    for file in (folder / "folm" / "policy").iterdir():
        file.unlink()
    (folder / "folm" / "policy").rmdir()
    return folder


def trained(run: Path, folder: Path, dtype: torch.dtype = torch.bfloat16, shard: str = "50GB") -> Path:
    """What OpenRLHF's `save_model` leaves: `save_pretrained` in bf16, and the tokenizer."""
    start = run / "folm" / "warm_start"
    model = AutoModelForCausalLM.from_pretrained(start, dtype=dtype)
    with torch.no_grad():
        model.model.norm.weight += 0.5
    model.save_pretrained(folder, state_dict=model.state_dict(), max_shard_size=shard)
    AutoTokenizer.from_pretrained(start).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_stage_sets_samples_the_imported_policy(run: Path, tmp_path: Path) -> None:
    source = trained(run, tmp_path / "trained")
    done = r4t("import-policy", run, source)
    assert done.returncode == 0, done.stderr
    assert "goes on with the stage sets" in done.stdout
    config = settings()
    opened = Run(run, config)
    with session(config, "local"):
        synthesize.main(config, opened)
    opened.close()
    made = read_manifest(run / "sets")
    assert made is not None
    assert made["inputs"]["folm"]["manifest"] == file_hash(run / "folm" / MANIFEST)
    imported = read_manifest(run / "folm")
    assert imported is not None
    assert imported["imported"] == {
        "trainer": "openrlhf",
        "folder": str(source),
        "files": {"model.safetensors": file_hash(source / "model.safetensors")},
    }
    assert verify(run) == []
    norm = read_tensors(run / "folm/warm_start/model.safetensors")["model.norm.weight"]
    with np.errstate(all="ignore"):
        assert norm.mean() == pytest.approx(1.0), "the start stays what it was"


def test_shards_become_the_one_file_that_the_stages_read(run: Path, tmp_path: Path) -> None:
    source = trained(run, tmp_path / "trained", torch.float32, shard="40KB")
    assert len(list(source.glob("*.safetensors"))) > 1
    (source / "modeling_evil.py").write_text("raise SystemExit")
    write_sealed(source / RECORD, {"files": {}})  # as a folder has that came of a policy of ours
    import_policy.main(run, source, None, "mine")
    policy = run / "folm" / "policy"
    assert [file.name for file in policy.glob("*.safetensors")] == ["model.safetensors"]
    assert not list(policy.glob("*.py")), "no code is taken"
    ours = AutoModelForCausalLM.from_pretrained(policy).state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(source).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert verify(run) == []
    assert damage(policy) == ""
    with pytest.raises(UserError, match="holds a trained policy already"):
        import_policy.main(run, source, None, "mine")


def test_a_run_without_a_warm_start_is_given_one(run: Path, tmp_path: Path) -> None:
    source = trained(run, tmp_path / "trained")
    start = (run / "folm" / "warm_start").rename(tmp_path / "start")
    with pytest.raises(UserError, match="give it with --start DIR"):
        import_policy.main(run, source, None, "trl")
    import_policy.main(run, source, start, "trl")
    assert file_hash(run / "folm/warm_start/config.json") == file_hash(start / "config.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("adapters", "holds adapters"),
        ("nan", "NaN or infinite weights"),
        ("cut", "is damaged"),
        ("weights", r"has no \.safetensors"),
        ("kind", "hidden_size 128 there, 64 here"),
        ("words", "different vocabularies"),
        ("shapes", "are not those of"),
    ],
)
def test_what_is_no_continuation_is_refused_and_nothing_finished(
    run: Path, tmp_path: Path, damage: str, message: str
) -> None:
    source = trained(run, tmp_path / "trained", torch.float32)
    _damage(source, damage)
    with pytest.raises(UserError, match=message):
        import_policy.main(run, source, None, "openrlhf")
    assert not is_finished(run / "folm")


def _damage(source: Path, damage: str) -> None:
    weights = source / "model.safetensors"
    policy = settings().policy
    if damage == "adapters":
        (source / "adapter_config.json").write_text("{}")
    elif damage == "nan":
        model = AutoModelForCausalLM.from_pretrained(source)
        with torch.no_grad():
            model.model.norm.weight[0] = float("nan")
        model.save_pretrained(source)
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "weights":
        weights.unlink()
    elif damage == "kind":
        tokenizer = train_tokenizer([*NAMES, *QUERIES], policy.vocab_size)
        create_policy(source, tokenizer, policy.model_copy(update={"hidden": 128}), 0)
    elif damage == "words":
        train_tokenizer(["quite other words than those"] * 3, policy.vocab_size).save_pretrained(source)
    else:
        config: Any = read_json(source / "config.json")
        wider = AutoModelForCausalLM.from_pretrained(source).config
        wider.intermediate_size += 16
        AutoModelForCausalLM.from_config(wider).save_pretrained(source)
        (source / "config.json").write_text(json.dumps(config))


def test_bad_folders_are_one_message(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run directory"):
        import_policy.main(tmp_path, tmp_path, None, "trl")
    with pytest.raises(UserError, match=r"has no config\.json"):
        import_policy.main(run, tmp_path / "absent", None, "trl")


def test_export_prompts_writes_what_the_runs_policy_reads(run: Path, tmp_path: Path) -> None:
    done = r4t("export-prompts", run, tmp_path / "p.jsonl", "--split", "test")
    assert done.returncode == 0, done.stderr
    assert "--data.label_key label" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    dataset, tokenizer = load_dataset(run / "prepare"), load_tokenizer(run / "folm" / "warm_start")
    assert rows == prompt_rows(dataset, settings(), dataset.split("test").tolist(), tokenizer)
    for file, split, message in (("p.csv", "test", r"\.jsonl or \.parquet"), ("p.jsonl", "tset", "unknown split")):
        with pytest.raises(UserError, match=message):
            export_prompts.main(run, tmp_path / file, split, None)
