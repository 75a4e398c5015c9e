"""Retrievers whose encoder is in no package: a run knows its files, for an exported folder they are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from export_fixtures import FOODS, made_run
from sentence_model import WORDS, write_model
from serve_process import served
from support import assert_user_error, r4t

from jobs.export import export
from jobs.serving_folder import serve_settings
from r4t.client import Client
from r4t.errors import UserError
from r4t.retriever import R4TRetriever
from r4t.serving.version import open_version

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("encoder") / "model", words=[*WORDS, *FOODS, "grilled", "baked"])


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"name": "sentence_transformers", "path": str(model)}
    return made_run(tmp_path_factory.mktemp("made") / "run", encoder=settings)


@pytest.fixture(scope="module")
def folder(run: Path) -> Path:
    export(run, run.parent / "exported", onnx=True)
    return run.parent / "exported"


def expected(folder: Path, model: Path) -> list[str]:
    opened = R4TRetriever.from_pretrained(folder, engine="onnx", threads=1, encoder_path=model)
    return [item.item_id for item in opened.retrieve("baked apple pie", 7, seed=4)[0].items]


def test_a_run_is_served_with_its_own_encoder(run: Path, folder: Path, model: Path) -> None:
    with served(run, "--lite", "--port", "0") as (url, _), Client(url) as client:
        found = client.retrieve("baked apple pie", 7, seed=4)
    assert [item.item_id for item in found.sets[0].items] == expected(folder, model)


def test_an_exported_folder_is_served_with_the_files_that_are_given(folder: Path, model: Path) -> None:
    option = f"serve.encoder_path={model}"
    with served(folder, "--lite", "--port", "0", "--set", option) as (url, _), Client(url) as client:
        found = client.retrieve("baked apple pie", 7, seed=4)
    assert [item.item_id for item in found.sets[0].items] == expected(folder, model)


def test_what_the_command_line_names_is_relative_to_where_it_runs(
    run: Path, folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    assert serve_settings(run).serve.encoder_path == model
    assert serve_settings(folder).serve.encoder_path is None
    for source in (run, folder):
        assert serve_settings(source, ["serve.encoder_path=other"]).serve.encoder_path == model.parent / "other"


def test_an_encoder_without_its_files_is_one_message(folder: Path, tmp_path: Path) -> None:
    assert_user_error(r4t("serve", folder, "--lite"), "'sentence_transformers'", "--set serve.encoder_path=PATH")
    with pytest.raises(UserError, match="nothing at"):
        open_version([folder], "onnx", 1, encoder_path=tmp_path / "absent")
    other = write_model(tmp_path / "other", pooling="cls")
    with pytest.raises(UserError, match="not the one the retriever was trained with"):
        open_version([folder], "onnx", 1, encoder_path=other)


@pytest.mark.parametrize("way", [("--lite",), ()])
def test_a_table_of_vectors_is_refused_before_anything_starts(folder: Path, tmp_path: Path, way: tuple[str]) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    stored = json.loads((copy / "retriever.json").read_text())
    stored["encoder"]["name"] = "precomputed"
    (copy / "retriever.json").write_text(json.dumps(stored))
    done = r4t("serve", copy, *way, "--port", "8000")
    assert_user_error(done, "knows the texts of its table alone", "vectors instead of texts", "data.item_vectors")
    assert "Ray" not in done.stdout + done.stderr
