"""Every command as a newcomer runs it, with good and bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import ROOT, TINY, assert_user_error, flip, r4t

from jobs.cli import entry
from jobs.pipeline import RESUMABLE, check_same_config, locked, run_pipeline
from r4t import lineage
from r4t.config import Config, flatten, load_config
from r4t.errors import UserError
from r4t.policy import train_tokenizer
from r4t.verify import verify

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512}
COMMANDS = ("run", "retrieve", "evaluate", "report", "export", "control", "status", "verify", "doctor", "catalog")
COMMANDS += ("quickstart", "sets", "serve-reward", "export-prompts", "import-policy", "manifest", "plan")


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def r4t_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`r4t ARGS` in this process, which has imported most of it already."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["r4t", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            entry()
        return subprocess.CompletedProcess(sys.argv, ended.value.code or 0, *capsys.readouterr())

    return run


def test_help_answers_in_under_a_second_and_lists_every_command() -> None:
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        done = r4t("--help")
        seconds.append(time.monotonic() - start)
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    assert min(seconds) < 1.0


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = r4t(command, "--help")
    assert done.returncode == 0
    assert "Usage: r4t " + command in done.stdout


@pytest.mark.parametrize(
    "args", [["rnu"], ["run"], ["run", "--stagee", "x"], ["retrieve", "runs/x"], ["run", "a", "b"]]
)
def test_wrong_usage_is_exit_code_2(args: list[str]) -> None:
    done = r4t(*args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error" in done.stderr


@pytest.mark.parametrize(
    ("args", "fragments"),
    [
        (["run", "configs/absent.yaml"], ["no config at configs/absent.yaml", "configs/quickstart.yaml"]),
        (["run", TINY, "--set", "rl.stepz=1"], ["unknown config key 'rl.stepz'", "did you mean 'steps'"]),
        (["run", TINY, "--set", "rl.steps=many"], ["rl.steps", "integer", "many"]),
        (["run", TINY, "--stage", "fulm"], ["unknown stage 'fulm'", "folm"]),
        (["run", TINY, "--set", "retriever.rows=2"], ["retriever.rows", "fanout.k"]),
        (["run", TINY, "--set", "policy.model=/absent"], ["/absent", "config.json"]),
        (["run", TINY, "--stage", "sets"], ["'sets' needs prepare, folm", "--stage all"]),
        (
            ["run", TINY, "--set", "encoder.name=precomputed", "--set", "encoder.path=v.parquet"],
            ["'precomputed' only knows the texts of its table", "data.item_vectors"],
        ),
        (["retrieve", "absent", "dinner"], ["absent", "r4t run"]),
        (["evaluate", "absent"], ["absent is no run directory", "r4t run"]),
        (["report", "absent"], ["absent is no run directory"]),
        (["status", "absent"], ["absent is no run directory"]),
        (["verify", "absent"], ["no manifest.json in absent"]),
        (["sets", "stats", "absent"], ["absent is no run directory"]),
        (["sets", "reground", "absent", "--catalog", "new"], ["absent is no run directory"]),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    tmp_path: Path, args: list[Any], fragments: list[str], r4t_here: Run
) -> None:
    more = ["--run-dir", tmp_path / "run"] if args[0] == "run" else []
    assert_user_error(r4t_here(*args, *more), *fragments)
    assert not (tmp_path / "run").exists()


def test_a_policy_directory_without_tokenizer_is_said_before_anything_is_written(tmp_path: Path, r4t_here: Run) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    done = r4t_here("run", TINY, "--run-dir", tmp_path / "run", "--set", f"policy.model={tmp_path}/model")
    assert_user_error(done, "tokenizer", str(tmp_path / "model"))
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory whose prepare stage is finished."""
    folder = tmp_path_factory.mktemp("prepared") / "run"
    done = r4t("run", TINY, "--stage", "prepare", "--run-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_one_stage_runs_alone_and_says_where_things_are(prepared: Path) -> None:
    assert lineage.is_finished(prepared / "prepare")
    assert not (prepared / "folm").exists()
    done = r4t("run", TINY, "--stage", "prepare", "--run-dir", prepared)
    assert done.returncode == 0
    assert "is finished, nothing to do" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "overrides", "fragments"),
    [
        ({"model_type": "nobody"}, (), ["config.json is none that transformers knows", "nobody"]),
        (
            {"model_type": "nobody", "auto_map": {"AutoConfig": "code.Own"}},
            (),
            ["own code are not run here"],
        ),
        ({"model_type": "bert", "architectures": ["BertModel"]}, (), ["BertModel", "such as a LlamaForCausalLM"]),
        ({"model_type": "llama"}, (), ["do not both know it"]),
        (LLAMA | {"max_position_embeddings": 32}, (), ["policy.max_length", "more than the 32 tokens"]),
        (LLAMA, ("fanout.prompt=paper",), ["no chat template", "chat_template.jinja", "compact"]),
    ],
    ids=["unknown-kind", "own-code", "encoder", "no-architecture", "too-long", "no-chat-template"],
)
def test_a_model_that_stage_1_cannot_run_is_refused_before_anything_is_written(
    tmp_path: Path, config: dict[str, Any], overrides: tuple[str, ...], fragments: list[str]
) -> None:
    model = tmp_path / "model"
    train_tokenizer(["apple pie", "beef stew"], 400).save_pretrained(model)
    (model / "config.json").write_text(json.dumps(config))
    (model / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (model / "model.safetensors").touch()
    sets = [part for override in overrides for part in ("--set", override)]
    done = r4t("run", TINY, "--run-dir", tmp_path / "run", "--set", f"policy.model={model}", *sets)
    assert_user_error(done, str(model), *fragments)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "ran").exists()


def test_status_of_a_started_run(prepared: Path) -> None:
    found = json.loads(r4t("status", prepared, "--json").stdout)
    assert found["stages"]["prepare"]["state"] == "finished"
    assert found["stages"]["folm"]["state"] == "waiting"
    assert found["newest"]["stage"] == "prepare"
    assert not found["running"]
    assert not found["finished"]
    text = r4t("status", prepared).stdout
    assert "prepare" in text
    assert "not running" in text
    with locked(prepared):
        assert json.loads(r4t("status", prepared, "--json").stdout)["running"]


def test_another_config_is_refused_with_the_differing_keys(prepared: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*") if path.is_file()}
    done = r4t("run", TINY, "--run-dir", prepared, "--set", "rl.lr=0.5", "--set", "seed=9")
    assert_user_error(done, "rl.lr: 0.0004 there, 0.5 now", "seed: 0 there, 9 now", "--run-dir")
    assert "rl.steps" not in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in prepared.rglob("*") if path.is_file()}


def test_how_a_run_computes_may_change_between_starts(prepared: Path) -> None:
    assert set(RESUMABLE) <= flatten(Config()).keys()
    check_same_config(prepared, load_config(TINY, ["learner.ranks=1", "rollout.workers=3", "cluster.call_timeout=50"]))
    with pytest.raises(UserError, match=r"(?s)learner.dtype.*there") as refused:
        check_same_config(prepared, load_config(TINY, ["learner.ranks=1", "learner.dtype=bfloat16"]))
    assert "learner.ranks" not in str(refused.value)


def test_a_stage_is_not_built_on_one_that_has_changed(tmp_path: Path) -> None:
    for stage, inputs in (("prepare", {}), ("folm", {"prepare": tmp_path / "prepare"})):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "x.json").write_text("[1]")
        lineage.write_manifest(tmp_path / stage, stage=stage, config={}, inputs=inputs, files=["x.json"], metrics={})
    (tmp_path / "prepare" / "x.json").write_text("[7]")
    with pytest.raises(
        UserError, match=r"not as it was written:\n.*prepare/x\.json: content changed[\s\S]*Restore"
    ) as told:
        run_pipeline(load_config(TINY), tmp_path, "sets")
    assert "folm" not in str(told.value)


def test_two_processes_do_not_share_a_run_directory(prepared: Path) -> None:
    with locked(prepared):
        assert_user_error(r4t("run", TINY, "--run-dir", prepared), "another process (pid ", "--run-dir")
        assert_user_error(r4t("report", prepared), "another process")


def test_verify_says_when_all_is_well_and_finds_a_changed_byte(prepared: Path, tmp_path: Path) -> None:
    assert r4t("verify", prepared).returncode == 0
    shutil.copytree(prepared, tmp_path / "copy")
    path = tmp_path / "copy" / "prepare" / "vectors.safetensors"
    flip(path, -1)
    done = r4t("verify", tmp_path / "copy")
    assert done.returncode == 1
    assert "vectors.safetensors: content changed" in done.stdout


@pytest.mark.parametrize(
    ("args", "fragments"),
    [
        (["retrieve", "{run}", "  ", "--method", "mmr"], ["query is empty"]),
        (["retrieve", "{run}", "dinner"], ["r4t_diffusion", "retriever"]),
        (["evaluate", "{run}", "--set", "rl.lr=1"], ["rl.lr=1", "keys of 'evaluate' alone"]),
        (["judge", "{run}", "--url", "http://127.0.0.1:9/v1", "--model", "m"], ["shown.parquet", "r4t evaluate"]),
        (["judge", "{run}", "--url", "ftp://secret@host", "--model", "m"], ["the judge's server: url", "http://"]),
        (["retrieve", "{run}", "dinner", "--method", "mrr"], ["unknown method 'mrr'", "did you mean 'mmr'"]),
        (["retrieve", "{run}", "dinner", "--method", "mmr", "-k", "99"], ["-k 99", "1 to 4"]),
    ],
)
def test_retrieve_names_what_is_wrong(prepared: Path, args: list[str], fragments: list[str], r4t_here: Run) -> None:
    assert_user_error(r4t_here(*[prepared if arg == "{run}" else arg for arg in args]), *fragments)


def test_retrieve_prints_a_set_also_as_json(prepared: Path, r4t_here: Run) -> None:
    done = r4t_here("retrieve", prepared, "light summer lunch", "--method", "mmr", "-k", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["items"]) == 3
    assert found["query"] == "light summer lunch"
    assert found["items"][0]["name"] in r4t_here("retrieve", prepared, "light summer lunch", "--method", "mmr").stdout


def test_w_and_b_online_without_a_key_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, r4t_here: Run) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    done = r4t_here("run", TINY, "--stage", "prepare", "--run-dir", tmp_path / "run", "--set", "tracking.wandb=online")
    assert_user_error(done, "WANDB_API_KEY", "tracking.wandb=offline")


def test_w_and_b_offline_leaves_a_run_that_can_be_synced_and_no_secret(tmp_path: Path) -> None:
    secret = "0123456789abcdef0123456789abcdef01234567"  # noqa: S105
    options = ["--stage", "prepare", "--run-dir", tmp_path / "run", "--set", "tracking.wandb=offline"]
    done = r4t("run", TINY, *options, env={"WANDB_API_KEY": secret})
    assert done.returncode == 0, done.stderr
    (data,) = (tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb")
    content = data.read_bytes()
    assert b"prepare/items" in content
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in files)
    assert secret not in done.stdout + done.stderr


ITEMS = {"item_id": ["a", "b", "c"], "text": ["red wool coat", "blue silk scarf", "green felt hat"]}
SETS = {
    "set_id": [f"s{i}" for i in range(6)],
    "title": ["winter look", "rainy walk", "city trip", "first date", "office day", "garden party"],
    "item_ids": [["a", "b"], ["b", "c"], ["a", "c"], ["a", "b"], ["b", "c"], ["a", "c"]],
    "split": ["train"] * 4 + ["valid", "test"],
}


@pytest.mark.parametrize(
    ("items", "sets", "fragments"),
    [
        ({"item_id": ["a"]}, SETS, ["text", "items.parquet"]),
        ({"item_id": [], "text": []}, SETS, ["items.parquet"]),
        (ITEMS | {"item_id": ["a", "b", "b"]}, SETS, ["'b'"]),
        (ITEMS, SETS | {"item_ids": [["a", "nowhere"], *SETS["item_ids"][1:]]}, ["nowhere"]),
        (ITEMS, {name: values for name, values in SETS.items() if name != "title"}, ["title", "sets.parquet"]),
    ],
    ids=["missing item column", "no items", "duplicate ids", "unknown item in a set", "missing set column"],
)
def test_bad_tables_are_refused_before_anything_is_written(
    tmp_path: Path, items: dict, sets: dict, fragments: list[str], r4t_here: Run
) -> None:
    done = _run_tables(tmp_path, items, sets, r4t_here)
    assert_user_error(done, *fragments)
    assert not (tmp_path / "run" / "prepare" / "manifest.json").exists()


def test_after_a_mistake_in_the_data_the_same_directory_serves(tmp_path: Path) -> None:
    assert _run_tables(tmp_path, {"item_id": ["a"]}, SETS).returncode == 2
    done = _run_tables(tmp_path, ITEMS, SETS)
    assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "run") == []


def _run_tables(folder: Path, items: dict, sets: dict, run: Run = r4t) -> Any:
    pq.write_table(pa.table(items), folder / "items.parquet")
    pq.write_table(pa.table(sets), folder / "sets.parquet")
    options = [
        f"data.items={folder}/items.parquet",
        f"data.sets={folder}/sets.parquet",
        "data.kind=table",
        "task=wscr",
    ]
    overrides = [part for option in options for part in ("--set", option)]
    return run("run", TINY, "--stage", "prepare", "--run-dir", folder / "run", *overrides)


@pytest.mark.slow
def test_doctor_proves_that_the_engines_load_and_work() -> None:
    done = r4t("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout
    assert found["healthy"]
    assert all(found["packages"][name]["works"] for name in ("vllm", "deepspeed", "faiss", "ray"))
    assert found["machine"]["cpus"] >= 1
    worked = {check["name"]: check["found"] for check in found["checks"]}
    assert "holds published weights bit for bit" in worked["transformers"]
    assert {"DeepSpeed", "vLLM", "FAISS"} <= worked.keys()


@pytest.mark.slow
def test_a_quick_doctor_only_imports() -> None:
    done = r4t("doctor", "--json", "--quick")
    assert done.returncode == 0, done.stdout
    assert not {"DeepSpeed", "vLLM", "FAISS"} & {check["name"] for check in json.loads(done.stdout)["checks"]}
