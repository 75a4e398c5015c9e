"""The report page and its charts."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r4t.errors import UserError
from r4t.evaluation import svg
from r4t.evaluation.labels import in_words
from r4t.evaluation.report import render, write_report
from r4t.evaluation.run_page import RunRecord
from r4t.lineage import write_json
from r4t.tracking import MetricsFile

HOSTILE = "<script>alert('x')</script> & \"quoted\" <img src=x onerror=alert(1)>"
VOID = {"meta", "br", "img", "rect", "circle", "path", "polyline"}


def cell(mean: float) -> dict[str, float]:
    return {"mean": mean, "std": 0.1, "stderr": 0.01, "n": 50}


def metrics(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "schema": 1,
        "dataset": "recipes",
        "task": "oar",
        "split": "test",
        "n_queries": 50,
        "seeds": [0],
        "k": 10,
        "n": 1,
        "database_items": 4734,
        "encoder": "wordllama, 128 columns",
        "judge_encoder": "minilm, item names",
        "methods": {
            "random": {"diversity": cell(0.77), "content_alignment": cell(0.12), "distinct_overall": 400},
            "zero_shot": {"reward": cell(0.51), "diversity": cell(0.6), "content_alignment": cell(0.31)},
            "r4t_folm": {
                "reward": cell(0.54),
                "diversity": cell(0.65),
                "content_alignment": cell(0.32),
                "groundedness": cell(0.271),
                "judge": {"diversity": cell(0.6), "alignment": cell(0.3)},
                "latency_ms": {"1": {"p50": 76.0, "p95": 90.0}, "8": {"p50": 113.0, "p95": 130.0}},
            },
            "r4t_diffusion": {
                "reward": cell(0.53),
                "diversity": cell(0.64),
                "content_alignment": cell(0.3),
                "manifold": cell(0.4),
                "latency_ms": {"1": {"p50": 12.0, "p95": 14.0}, "8": {"p50": 20.0, "p95": 22.0}},
            },
        },
        "checks": [{"name": "a", "value": 1.0, "threshold": 0.9, "holds": True, "detail": ""}],
        "deviations": ["Encoder: wordllama."],
    }
    return base | changes


def rendered(**parts: Any) -> str:
    return render(RunRecord(**parts))


class Reader(HTMLParser):
    """Checks that tags nest, and collects table rows and every tag that was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


def results(page: str) -> dict[str, dict[str, str]]:
    rows = read(page).rows
    head = next(row for row in rows if row[0] == "Method")
    body = rows[rows.index(head) + 1 :]
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body if len(row) == len(head)}


def test_a_metric_that_does_not_apply_is_an_empty_cell_never_zero() -> None:
    table = results(rendered(name="run", metrics=metrics()))
    assert table["Random"]["Reward"] == ""
    assert table["Random"]["Diversity"].startswith("0.770")
    assert table["Zero-shot"]["Groundedness"] == ""
    assert table["R4T-FOLM"]["Judge: alignment"].startswith("0.300")


def test_c58_groundedness_of_the_compiled_retriever_is_empty_and_its_substitute_labelled() -> None:
    table = results(rendered(name="run", metrics=metrics()))
    assert table["R4T-Diffusion"]["Groundedness"] == ""
    assert table["R4T-Diffusion"]["Manifold"].startswith("0.400")
    assert table["R4T-FOLM"]["Manifold"] == ""


def test_c60_deviations_stand_next_to_the_results() -> None:
    assert "Encoder: wordllama." in rendered(name="run", metrics=metrics())


def test_hostile_names_are_text_in_every_section() -> None:
    hostile = metrics(dataset=HOSTILE, deviations=[HOSTILE], encoder=HOSTILE)
    hostile["checks"][0] |= {"name": HOSTILE, "detail": HOSTILE}
    sample = {
        "query": HOSTILE,
        "references": [HOSTILE],
        "methods": {"zero_shot": {"items": [HOSTILE], "subqueries": [HOSTILE], "valid": False}},
    }
    control = {"runs": [{"name": HOSTILE, "curve": [{"step": 0, "distinct": 1.0}, {"step": 1, "distinct": 0.5}]}]}
    page = rendered(name=HOSTILE, metrics=hostile, samples=[sample], control=control)
    tags = read(page).tags
    assert not [tag for tag, attributes in tags if tag in ("script", "img") or "onerror" in attributes]
    assert page.count("&lt;script&gt;") >= 8


def test_the_page_loads_nothing_from_elsewhere() -> None:
    tags = read(rendered(name="run", metrics=metrics())).tags
    assert not [a for tag, a in tags if tag == "link" or "src" in a or str(a.get("href", "#"))[0] != "#"]


def test_every_chart_says_in_words_what_it_shows() -> None:
    charts = [a for tag, a in read(rendered(name="run", metrics=metrics())).tags if tag == "svg"]
    assert len(charts) >= 5
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    assert any("R4T-Diffusion 12 ms" in str(a["aria-label"]) for a in charts)


def test_sections_without_data_are_left_out() -> None:
    page = rendered(name="run", metrics=metrics(methods={"random": {"diversity": cell(0.7)}}, checks=[], deviations=[]))
    for anchor in ("latency", "control", "sets", "deviations", "checks", "trade-off", "learning"):
        assert f'id="{anchor}"' not in page
    assert 'id="results"' in page


def test_references_and_repeats_are_marked_in_the_sets() -> None:
    sample = {"query": "q", "references": ["flour"], "methods": {"r4t_folm": {"items": ["flour", "egg", "egg"]}}}
    page = rendered(name="run", metrics=metrics(), samples=[sample])
    assert '<li class="hit">flour</li><li>egg</li><li class="again">egg</li>' in page


def test_report_of_a_run_draws_the_reward_curve_per_term(tmp_path: Path) -> None:
    write_json(tmp_path / "evaluate" / "metrics.json", metrics())
    log = MetricsFile(tmp_path / "metrics.jsonl")
    for step in range(1, 4):
        log.write("folm", step, {"reward/mean": 0.1 * step, "reward/diversity": math.nan if step == 2 else 0.5})
        log.write("valid", step, {"reward": 0.2})
    log.close()
    page = write_report(tmp_path, tmp_path / "report").read_text()
    labels = [str(a.get("aria-label")) for tag, a in read(page).tags if tag == "svg"]
    assert "Reward over step: training from 0.1 to 0.3, validation from 0.2 to 0.2" in labels
    assert "Diversity over step: training from 0.5 to 0.5" in labels


def test_a_run_that_was_not_evaluated_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--stage evaluate"):
        write_report(tmp_path, tmp_path / "report")


def test_keys_become_words_but_only_as_whole_words() -> None:
    assert in_words("judge.diversity: r4t_folm above zero_shot") == "Judge: diversity: R4T-FOLM above Zero-shot"
    assert in_words("zero_shot_diffusion, my_zero_shot") == "Zero-shot diffusion, my_zero_shot"


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_pareto_front_equals_its_definition(points: list[tuple[int, int]]) -> None:
    front = [points[i] for i in svg.pareto_front(points)]
    beaten = {p for p in points for q in points if q != p and q[0] >= p[0] and q[1] >= p[1]}
    assert sorted(front) == front
    assert set(front) == set(points) - beaten


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3))
def test_ticks_enclose_the_data(low: float, span: float) -> None:
    ticks = svg.nice_ticks(low, low + span, 4)
    slack = 1e-6 * max(abs(low), span, 1e-3)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))


def test_alarms_and_failure_modes_are_listed_with_their_steps_and_not_drawn() -> None:
    def valid(step: int, **raised: float) -> dict[str, Any]:
        values = {"reward": 0.2, "alarm/distinct": 0.0, "mode/semantic_drift": 0.0} | raised
        return {"stage": "valid", "step": step, "values": values}

    log = [valid(0), valid(5, **{"mode/semantic_drift": 1.0}), valid(9, **{"mode/semantic_drift": 1.0})]
    page = rendered(name="run", metrics=metrics(), log=log)
    assert "semantic drift (failure mode) at step 5, 9" in page
    assert "alarm/distinct" not in page
    assert "No validation raised" in rendered(name="run", metrics=metrics(), log=[valid(0)])


def test_a_student_is_what_the_speed_is_told_of_where_there_is_one() -> None:
    teacher = {"sampler": {"name": "dpmpp_2m", "nfe": 8}}
    page = rendered(name="run", metrics=metrics(**teacher))
    assert "R4T-FOLM&#x27;s time over R4T-Diffusion&#x27;s 12" in page
    assert "8 network calls" in page
    assert "Student" not in page
    student = {"latency_ms": {"1": {"p50": 4.0, "p95": 5.0}}}
    methods = metrics()["methods"] | {"r4t_distilled": student}
    page = rendered(name="run", metrics=metrics(methods=methods, student={"nfe": 1}, **teacher))
    assert "<b>19.0 ×</b><span>R4T-FOLM&#x27;s time over R4T-Distilled&#x27;s 4" in page
    assert "<dt>Student</dt><dd>1 network call</dd>" in page
    del methods["r4t_folm"]
    assert "time over" not in rendered(name="run", metrics=metrics(methods=methods)), "there is nothing to compare with"
