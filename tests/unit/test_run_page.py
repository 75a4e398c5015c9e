"""What a run shows of itself: its sections, from the files of a run or of an exported retriever."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from r4t.evaluation.lineage_graph import changed_sources, edges, lineage_figure, stages_of_run
from r4t.evaluation.run_page import run_page
from r4t.evaluation.training_samples import read_samples, save_samples
from r4t.lineage import MANIFEST, file_hash, write_json, write_manifest
from r4t.retriever.files import Description, write_description
from r4t.tracking import MetricsFile

HOSTILE = '<img src=x onerror="alert(1)">'


def stage(run: Path, name: str, *inputs: str) -> Path:
    folder = run / name
    write_json(folder / "out.json", {"made by": name})
    sources = {source: run / source for source in inputs}
    write_manifest(folder, stage=name, config={}, inputs=sources, files=["out.json"], metrics={"seconds": 2.0})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    stage(tmp_path, "prepare")
    stage(tmp_path, "folm", "prepare")
    stage(tmp_path, "sets", "prepare", "folm")
    stage(tmp_path, "sets/zero_shot", "prepare", "folm")
    stage(tmp_path, "retriever", "prepare", "sets")
    return tmp_path


def drawn(run: Path) -> set[tuple[str, str]]:
    return {(source.name, made.name) for source, made in edges(stages_of_run(run))}


def test_the_graph_draws_what_no_other_edge_implies(run: Path) -> None:
    assert drawn(run) == {("prepare", "folm"), ("folm", "sets"), ("folm", "sets/zero_shot"), ("sets", "retriever")}
    assert "retriever from sets" in lineage_figure(stages_of_run(run))
    assert changed_sources(stages_of_run(run)) == []


def test_a_source_that_has_changed_since_loses_its_edge_and_is_named(run: Path) -> None:
    old = file_hash(run / "sets" / MANIFEST)
    write_json(run / "sets" / "out.json", {"made by": "somebody else"})
    write_manifest(run / "sets", stage="sets", config={}, inputs={}, files=["out.json"], metrics={})
    assert ("sets", "retriever") not in drawn(run)
    assert changed_sources(stages_of_run(run)) == [
        f"retriever was made from another sets ({old[:10]}) than the one that is here"
    ]
    assert old[:10] in sections(run)["lineage"]


def test_the_report_and_copies_of_the_retriever_are_no_part_of_the_graph(run: Path) -> None:
    stage(run, "report", "retriever")
    write_json(run / "serving" / "retriever" / "out.json", {})
    write_manifest(run / "serving" / "retriever", stage="export", config={}, inputs={}, files=["out.json"], metrics={})
    assert {found.name for found in stages_of_run(run)} == {"prepare", "folm", "sets", "sets/zero_shot", "retriever"}


def test_boxes_neither_overlap_nor_leave_the_figure(run: Path) -> None:
    for name in "abcd":
        stage(run, f"retriever/{name}", "sets")
    boxes = [
        tuple(float(attributes[key]) for key in ("x", "y", "width", "height"))
        for tag, attributes in tags(lineage_figure(stages_of_run(run)))
        if tag == "rect"
    ]
    assert len(boxes) == 9
    for place, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert x + width <= 360
        for x2, y2, *_ in boxes[place + 1 :]:
            assert abs(x - x2) >= width or abs(y - y2) >= height


def test_a_run_that_still_trains_shows_what_it_has(run: Path) -> None:
    log = MetricsFile(run / "metrics.jsonl")
    log.write("warm_start", 50, {"loss": 3.0})
    log.write("valid", 0, {"reward": 0.3})
    log.close()
    found = sections(run)
    assert set(found) == {"learning", "losses", "lineage"}
    assert "warm start" in found["losses"]
    assert "not been evaluated" in run_page(run)["lead"]


def test_samples_follow_the_steps_and_a_repeated_step_counts_once(run: Path) -> None:
    for step, item in ((0, "tea"), (15, "soup"), (0, HOSTILE)):
        sample = {"query": "dinner", "reward": 0.5, "valid": True, "subqueries": ["hot"], "items": [item]}
        save_samples(run / "folm", step, [sample])
    assert [(found["step"], found["items"]) for found in read_samples(run / "folm")[0]["steps"]] == [
        (0, [HOSTILE]),
        (15, ["soup"]),
    ]
    markup = sections(run)["samples"]
    assert markup.index("Step 0: reward 0.500") < markup.index("Step 15")
    assert not [tag for tag, _ in tags(markup) if tag == "img"]


def test_an_exported_retriever_shows_its_pareto_front_and_lineage(tmp_path: Path) -> None:
    means = {"diversity": 0.6, "content_alignment": 0.3, "judge.diversity": 0.5, "judge.alignment": 0.2}
    metrics = {"dataset": "recipes", "n_queries": 9, "database_items": 99}
    lineage = {
        "prepare": {"manifest": "a" * 64, "code": "c", "finished": "now", "inputs": {}},
        "retriever": {"manifest": "b" * 64, "code": "c", "finished": "now", "inputs": {"prepare": "a" * 64}},
    }
    methods = {"mmr": means, "r4t_diffusion": {key: value / 2 for key, value in means.items()}}
    description = Description(
        name="shop",
        rows=4,
        dim=8,
        k=3,
        calls=8,
        encoder={"fingerprint": "f"},
        lineage=lineage,
        metrics={**metrics, "methods": methods},
    )
    write_description(tmp_path, description)
    found = sections(tmp_path)
    assert set(found) == {"results", "methods", "trade-off", "lineage"}
    assert found["trade-off"].count("<svg") == 2
    assert "retriever from prepare" in found["lineage"]


def test_an_export_that_lies_in_a_run_stands_for_the_run(run: Path) -> None:
    (run / "config.yaml").touch()
    write_json(run / "serving" / "retriever" / "retriever.json", {})
    assert run_page(run / "serving" / "retriever")["name"] == run.name
    assert "sets/zero_shot" in sections(run / "serving" / "retriever")["lineage"]


def sections(folder: Path) -> dict[str, str]:
    return {section["id"]: section["html"] for section in run_page(folder)["sections"]}


def tags(markup: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Reader().feed(markup)
    return found
