"""The configuration is typed and closed, and its errors name the key and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from r4t.config import Config, flatten, load_config, parse_config
from r4t.errors import UserError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    assert load_config(path).name


@pytest.mark.parametrize(
    ("raw", "fragments"),
    [
        ({"rl": {"stepz": 3}}, ["rl.stepz", "did you mean 'steps'"]),
        ({"retreiver": {}}, ["retreiver", "did you mean 'retriever'"]),
        ({"retriever": {"sampler": {"stpes": 3}}}, ["retriever.sampler.stpes", "did you mean 'steps'"]),
        ({"rl": {"steps": "many"}}, ["rl.steps", "integer", "'many'"]),
        ({"rl": {"group_size": 1}}, ["rl.group_size", "2"]),
        ({"rl": 3}, ["rl"]),
        ({"encoder": {"dim": None}}, ["encoder.dim"]),
        ({"task": "both"}, ["task", "oar"]),
        ({"learner": {"ranks": 33}}, ["learner.ranks", "change one of them"]),
        ({"rollout": {"colocate": True}}, ["rollout.colocate", "make them equal"]),
        ({"objective": {"kind": "coverage"}}, ["coverage", "set task to 'wscr'"]),
        ({"data": {"kind": "table"}}, ["data.items", "Parquet, CSV or JSONL"]),
        ({"data": {"kind": "polyvore"}}, ["data.items", "train_no_dup.json"]),
        ({"data": {"kind": "musiccaps"}}, ["data.items", "musiccaps-public.csv"]),
        ({"data": {"columns": {"txet": "a"}}}, ["data.columns.txet", "did you mean 'text'"]),
        ({"data": {"columns": {"text": []}}}, ["data.columns.text", "at least 1"]),
        ({"data": {"families": 3}}, ["data.families", "string"]),
        ({"data": {"writer": "endpoint"}}, ["data.endpoint.url", "data.endpoint.model"]),
        ({"data": {"endpoint": {"url": "ftp://x"}}}, ["data.endpoint.url", "http"]),
        ({"data": {"augment": {"copies": 1}}}, ["data.augment", "set task to 'wscr'"]),
        ({"data": {"augment": {"size": 31}}}, ["size 31", "shortlist of 30"]),
        ({"data": {"augment": {"seed_share": [0.6, 0.3]}}}, ["data.augment", "[0.3, 0.6]"]),
        ({"serve": {"max_waiting": 3}}, ["serve", "max_queries = 64", "raise the one or lower the other"]),
        ({"serve": {"replicas": 3, "max_replicas": 2}}, ["max_replicas = 2", "replicas = 3"]),
        ({"serve": {"replicaz": 2}}, ["serve.replicaz", "did you mean 'replicas'"]),
        ({"encoder": {"name": "precomputed"}}, ["encoder", "set encoder.path"]),
        ({"encoder": {"path": "/x"}}, ["'wordllama'", "remove encoder.path"]),
        ({"encoder": {"name": "open_clip", "path": "/x"}}, ["needs encoder.model"]),
        ({"encoder": {"reduce": "svd"}}, ["encoder.reduce", "pca"]),
        ({"encoder": {"image_column": "photo"}}, ["no image tower", "open_clip"]),
        (
            {"encoder": {"name": "open_clip", "path": "/x", "model": "ViT-B-32", "image_column": "photo"}},
            ["encoder.image_column", "give items of your own"],
        ),
    ],
)
def test_a_mistake_names_the_key_and_the_fix(raw: dict, fragments: list[str]) -> None:
    with pytest.raises(UserError) as error:
        parse_config(raw)
    for fragment in fragments:
        assert fragment in str(error.value)


@pytest.mark.parametrize(
    ("key", "given"),
    [("url", "http://me:s3cret@host/v1"), ("url", "http://host/v1?key=s3cret"), ("api_key_env", "sk-s3cret")],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(key: str, given: str) -> None:
    with pytest.raises(UserError, match=f"data.endpoint.{key}") as error:
        parse_config({"data": {"endpoint": {key: given}}})
    assert "s3cret" not in str(error.value)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(UserError) as error:
        parse_config({"rl": {"stepz": 3, "lr": "x"}, "sead": 1})
    assert all(key in str(error.value) for key in ("'rl.stepz'", "'rl.lr'", "'sead'"))


def test_overrides_reach_nested_keys_and_are_typed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("rl: {steps: 7}\n")
    config = load_config(path, ["rl.lr=0.5", "retriever.sampler.steps=3", "evaluate.seeds=[1, 2]", "name=other"])
    assert (config.rl.steps, config.rl.lr, config.retriever.sampler.steps) == (7, 0.5, 3)
    assert config.evaluate.seeds == (1, 2)
    assert config.name == "other"


@pytest.mark.parametrize(
    ("override", "fragment"),
    [("rl.lr", "no '='"), ("name.first=x", "value"), ("rl.lr=[", "YAML"), ("rl.lrr=1", "did you mean 'lr'")],
)
def test_a_bad_override_says_so(tmp_path: Path, override: str, fragment: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: x\n")
    with pytest.raises(UserError, match=fragment):
        load_config(path, [override])


@pytest.mark.parametrize(
    ("text", "fragment"), [("a: [", "not valid YAML"), ("- 1\n", "mapping"), (None, "no config at")]
)
def test_a_file_that_is_no_config_says_so(tmp_path: Path, text: str | None, fragment: str) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=fragment):
        load_config(path)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("")
    assert load_config(tmp_path / "c.yaml") == Config()


def test_paths_are_relative_to_the_config_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "c.yaml"
    keys = "sets: s.csv, queries: q.csv, item_vectors: v"
    path.write_text(
        f"data: {{kind: table, items: ../items.parquet, {keys}}}\npolicy: {{model: /models/x}}\n"
        "encoder: {name: precomputed, path: vectors}\n"
        "evaluate: {judge: sentence_transformers, judge_path: judge}\n"
    )
    config = load_config(path)
    assert config.data.items == tmp_path / "items.parquet"
    found = (config.data.sets, config.data.queries, config.data.item_vectors)
    assert found == tuple(tmp_path / "sub" / name for name in ("s.csv", "q.csv", "v"))
    assert config.policy.model == Path("/models/x")
    assert config.encoder.path == tmp_path / "sub" / "vectors"
    assert config.evaluate.judge_path == tmp_path / "sub" / "judge"


def test_a_text_is_one_column_or_several() -> None:
    assert parse_config({"data": {"columns": {"text": "caption"}}}).data.columns.text == ("caption",)
    several = parse_config({"data": {"columns": {"text": ["name", "tags"]}}})
    assert several.data.columns.text == ("name", "tags")
    assert parse_config(yaml.safe_load(yaml.safe_dump(several.model_dump(mode="json")))) == several


def test_the_paper_objective_takes_the_papers_weights_unless_given() -> None:
    weights = parse_config({"objective": {"kind": "paper"}}).objective.weights
    assert weights == {"groundedness": 0.6, "diversity": 0.2, "alignment": 0.2}
    given = parse_config({"objective": {"kind": "paper", "weights": {"groundedness": 1.0}}}).objective.weights
    assert given == weights | {"groundedness": 1.0}


def test_flatten_tells_two_configurations_apart() -> None:
    one, two = flatten(Config()), flatten(parse_config({"rl": {"lr": 1.0}}))
    assert {key for key in one | two if one.get(key) != two.get(key)} == {"rl.lr"}


def test_a_config_survives_yaml() -> None:
    config = parse_config({"evaluate": {"seeds": [3]}, "data": {"kind": "table", "items": "/x"}})
    assert parse_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config
