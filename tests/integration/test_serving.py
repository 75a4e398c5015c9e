"""The endpoint's contract, on a catalogue of 24 dishes: what it answers, and the one error for each mistake."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_fixtures import NAMES, K
from serving_fixtures import COLUMNS, application, found, get, opened, send

from jobs.export import export
from r4t.catalog.index import ExactIndex
from r4t.config import Serve
from r4t.errors import UserError
from r4t.evaluation.run_page import run_page
from r4t.http import key_digest
from r4t.methods import MMR as EvaluatedMMR
from r4t.methods.base import QueryBatch
from r4t.objective.vendi import vendi
from r4t.retriever import R4TRetriever
from r4t.serving.app import serving_app
from r4t.serving.messages import ErrorResponse, MethodsResponse
from r4t.serving.methods import Writer, Written
from r4t.serving.service import Service
from r4t.serving.version import Asked, Version, open_version


def ids(answer: dict[str, Any], place: int = 0) -> list[str]:
    return [item["item_id"] for item in answer["sets"][place]["items"]]


def test_diffusion_answers_as_the_retriever_does(version: Version, folder: Path) -> None:
    retriever = R4TRetriever.from_pretrained(folder, engine="onnx", threads=1)
    app = application(version)
    for spread in (0.4, 1.0, 2.0):
        expected = retriever.retrieve(["light lunch", "warm leek"], 9, seed=3, spread=spread)
        (response,) = send(app, {"queries": ["light lunch", "warm leek"], "k": 9, "seed": 3, "spread": spread})
        answer = found(response)
        for place, its in enumerate(expected):
            assert ids(answer, place) == [item.item_id for item in its.items]
            shown = answer["sets"][place]["items"]
            assert [one["row"] for one in shown] == [item.row for item in its.items]
            assert [one["score"] for one in shown] == pytest.approx([item.score for item in its.items], abs=2e-6)
    assert (answer["k"], answer["seed"], answer["spread"], answer["method"]) == (9, 3, 2.0, "r4t_diffusion")
    assert answer["lineage"] == version.lineage
    assert set(answer["milliseconds"]) == {"encode", "generate", "search", "total"}


def test_a_vector_is_the_text_it_encodes(version: Version, folder: Path) -> None:
    vector = R4TRetriever.from_pretrained(folder, engine="onnx").encode(["leek soup"])[0]
    text, one, several = send(
        application(version),
        {"query": "leek soup"},
        {"vector": (3 * vector).tolist()},
        {"vectors": [vector.tolist(), vector.tolist()]},
    )
    assert ids(found(text)) == ids(found(one)) == ids(found(several), 1)
    assert found(one)["sets"][0]["query"] is None


@pytest.mark.parametrize("method", ["no_fanout", "mmr", "r4t_diffusion"])
def test_what_is_said_of_items_is_so(version: Version, method: str) -> None:
    answer = found(send(application(version), {"query": "raw apple", "k": 6, "method": method})[0])
    rows = [NAMES.index(item) for item in ids(answer)]
    vectors = version.catalogue.vectors[rows].astype(np.float64)
    query = version.answer([Asked(text="raw apple", vector=None, method=method, k=6, seed=0, spread=1.0, filters={})])[
        0
    ].vector
    items = answer["sets"][0]["items"]
    assert [one["alignment"] for one in items] == pytest.approx((vectors @ query).tolist(), abs=1e-5)
    novelty = [1.0] + [1 - float((vectors[:place] @ vectors[place]).max()) for place in range(1, 6)]
    assert [one["novelty"] for one in items] == pytest.approx(novelty, abs=1e-5)
    metrics = answer["sets"][0]["metrics"]
    assert metrics["alignment"] == pytest.approx(float((vectors @ query).mean()), abs=1e-5)
    assert metrics["diversity"] == pytest.approx(float(vendi(vectors.astype(np.float32))) / 6, abs=1e-5)
    assert metrics["distinct"] == 1.0
    assert items[0]["fields"]["how"] == COLUMNS["how"][rows[0]]
    assert items[0]["fields"]["tags"] == COLUMNS["tags"][rows[0]]
    assert items[0]["name"] == NAMES[rows[0]]


def test_mmr_is_the_one_that_is_evaluated(version: Version, folder: Path) -> None:
    retriever = R4TRetriever.from_pretrained(folder, engine="onnx")
    vectors = version.catalogue.vectors
    batch = QueryBatch(rows=np.zeros(1, dtype=np.int64), texts=("mint",), vectors=retriever.encode(["mint"]))
    expected = EvaluatedMMR(ExactIndex(vectors), vectors, K, 1, 0.5).retrieve(batch, 0).items[0, :, 0]
    answer = found(send(application(version), {"query": "mint", "k": K, "method": "mmr"})[0])
    assert ids(answer) == [NAMES[row] for row in expected]


@pytest.mark.parametrize("method", ["no_fanout", "mmr", "r4t_diffusion"])
def test_filters_are_exact(version: Version, method: str) -> None:
    filters = {"how": ["raw", "baked"], "tags": ["leek", "mint", "rice"]}
    allowed = {row for row, name in enumerate(NAMES) if name.split()[0] in filters["how"]} & {
        row for row, name in enumerate(NAMES) if name.split()[1] in filters["tags"]
    }
    body = {"query": "salmon", "k": 20, "method": method, "filters": filters}
    answer = found(send(application(version), body)[0])
    assert {NAMES.index(item) for item in ids(answer)} == allowed, "all of them, and nothing else"
    if method == "no_fanout":
        scores = [item["score"] for item in answer["sets"][0]["items"]]
        assert scores == sorted(scores, reverse=True)
    (nothing,) = send(application(version), body | {"filters": {"how": ["fried"]}})
    assert found(nothing)["sets"][0]["items"] == []
    assert found(nothing)["sets"][0]["metrics"] == {}


@pytest.mark.parametrize("filters", [{}, {"how": ["raw", "baked"]}])
def test_the_torch_engine_finds_what_the_graph_finds(version: Version, folder: Path, filters: dict[str, Any]) -> None:
    """Through an index of R4T's own, except among chosen items."""
    exact = open_version([folder], "torch", 1)
    assert isinstance(exact.catalogue.index.index, ExactIndex)
    for method in version.methods:
        body = {"queries": ["salmon", "leek soup"], "k": 5, "method": method, "filters": filters}
        here, there = (found(send(application(one), body)[0]) for one in (exact, version))
        for answer, other in zip(here["sets"], there["sets"], strict=True):
            assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in other["items"]]
            scores = [[item["score"] for item in one["items"]] for one in (answer, other)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_a_filter_of_numbers_and_a_combination_are_found(version: Version) -> None:
    body = {"query": "salmon", "k": 3, "method": "no_fanout", "filters": {"minutes": ["8"]}, "map": True}
    answer = found(send(application(version), body)[0])
    assert all(item["fields"]["minutes"] == 8 for item in answer["sets"][0]["items"])
    assert "price" not in get(application(version), "/v1/methods").text, "decimals do not group items"


def test_the_map_is_one_plane_for_everything(version: Version) -> None:
    app = application(version)
    one, two = (found(response)["sets"][0] for response in send(app, *[{"query": q, "map": True} for q in ("a", "b")]))
    assert one["map"]["background"] == two["map"]["background"]
    assert len(one["map"]["items"]) == len(one["items"])
    assert len(one["map"]["rows"]) == 6
    centred = version.catalogue.vectors - version.catalogue.vectors.mean(axis=0)
    strongest = np.linalg.svd(centred)[2][:2]
    row = NAMES.index(one["items"][0]["item_id"])
    assert np.abs(one["map"]["items"][0]) == pytest.approx(np.abs(centred[row] @ strongest.T), abs=1e-3)


def test_concurrent_requests_are_one_batch_and_none_sees_another(version: Version) -> None:
    settings = Serve()
    service = Service(version, settings)
    bodies = [
        {"query": f"{name} soup", "seed": seed, "k": 3 + seed, "method": method}
        for seed, (name, method) in enumerate(
            (name, method) for name in NAMES[:4] for method in ("r4t_diffusion", "mmr", "no_fanout")
        )
    ]
    bodies += [{"query": "mint soup", "k": 3, "method": "r4t_diffusion", "spread": spread} for spread in (0.0, 1.0)]
    alone = [found(send(application(version), body)[0])["sets"] for body in bodies]
    assert [item["item_id"] for item in alone[-1][0]["items"]] != [item["item_id"] for item in alone[-2][0]["items"]]
    together = send(serving_app(service, settings), *bodies)
    for body, expected, response in zip(bodies, alone, together, strict=True):
        its = found(response)["sets"]
        assert its[0]["query"] == body["query"]
        assert [item["item_id"] for item in its[0]["items"]] == [item["item_id"] for item in expected[0]["items"]]
    assert service.load.batches < len(bodies)


def test_methods_says_what_there_is(version: Version) -> None:
    response = get(application(version), "/v1/methods")
    said = MethodsResponse.model_validate_json(response.content)
    assert [one.name for one in said.methods] == ["no_fanout", "mmr", "r4t_diffusion"]
    assert said.default == "r4t_diffusion"
    assert (said.catalog.items, said.catalog.name) == (24, "run")
    assert {one.column for one in said.filters} == {"how", "tags", "minutes"}
    assert set(next(one.values for one in said.filters if one.column == "how")) == set(COLUMNS["how"])
    assert said.examples
    assert said.lineage == version.lineage


def test_a_language_model_is_served_where_one_is_given(folder: Path) -> None:
    def write(queries: list[str], seeds: list[int]) -> list[tuple[str, ...]]:
        return [
            () if "unusable" in text else (f"raw {text}", f"baked {text} {seed}")
            for text, seed in zip(queries, seeds, strict=True)
        ]

    served = open_version([folder], "onnx", 1, Writer(write=write, lineage="policy"))  # type: ignore[arg-type]
    assert isinstance(served.methods["r4t_folm"], Written)
    other = open_version([folder], "onnx", 1, Writer(write=write, lineage="other"))  # type: ignore[arg-type]
    assert len({served.lineage, other.lineage, served.exported}) == 3, "the policy is part of the version"
    app = application(served)
    good, bad, vector = send(
        app,
        {"query": "leek", "method": "r4t_folm", "k": 4, "seed": 1},
        {"query": "unusable", "method": "r4t_folm", "k": 4},
        {"vector": [1.0] * 16, "method": "r4t_folm"},
    )
    assert found(good)["sets"][0]["subqueries"] == ["raw leek", "baked leek 1"]
    assert ids(found(good))[0] == "raw leek"
    plain = send(app, {"query": "unusable", "method": "no_fanout", "k": 4})[0]
    assert ids(found(bad)) == ids(found(plain)), "an unusable answer is the plain query"
    assert vector.json()["error"]["code"] == "text_needed"


GOOD = {"query": "leek"}


@pytest.mark.parametrize(
    ("request_", "status", "code", "field"),
    [
        ("{", 400, "bad_json", None),
        (b"\xff\xfe", 400, "bad_json", None),
        ('{"query": "\\ud800"}', 400, "bad_json", None),
        ("[" * 9000, 400, "bad_json", None),
        ("[]", 422, "bad_request", None),
        ({}, 422, "bad_request", None),
        (GOOD | {"queries": ["a"]}, 422, "bad_request", None),
        (GOOD | {"limit": 3}, 422, "bad_request", "limit"),
        (GOOD | {"k": 0}, 422, "bad_request", "k"),
        (GOOD | {"k": "5"}, 422, "bad_request", "k"),
        (GOOD | {"k": True}, 422, "bad_request", "k"),
        (GOOD | {"k": 51}, 422, "too_many", "k"),
        (GOOD | {"seed": -1}, 422, "bad_request", "seed"),
        (GOOD | {"spread": -0.1}, 422, "bad_request", "spread"),
        ('{"query": "a", "spread": NaN}', 422, "bad_request", "spread"),
        ('{"query": "a", "spread": 1e999}', 422, "bad_request", "spread"),
        ({"query": " "}, 422, "bad_request", "query"),
        ({"query": "a\x00b"}, 422, "bad_request", "query"),
        ({"query": "x" * 201}, 422, "too_many", "query"),
        ({"queries": ["a"] * 5}, 422, "too_many", "queries"),
        ({"queries": []}, 422, "bad_request", "queries"),
        ({"queries": ["a", 3]}, 422, "bad_request", "queries.1"),
        ({"vector": [1.0, 2.0]}, 422, "wrong_width", "vector"),
        ({"vector": [0.0] * 16}, 422, "bad_vector", "vector"),
        ({"vectors": [[1e300] * 16]}, 422, "bad_vector", "vectors"),
        ('{"vector": [NaN]}', 422, "bad_request", "vector.0"),
        (GOOD | {"method": "mmrr"}, 422, "unknown_method", "method"),
        (GOOD | {"filters": {"price": ["1"]}}, 422, "unknown_column", "filters"),
        (GOOD | {"filters": {"how": "raw"}}, 422, "bad_request", "filters.how"),
        (GOOD | {"filters": {"how": ["raw"] * 101}}, 422, "bad_request", "filters.how"),
        ({"query": "x" * 20_000}, 413, "too_large", None),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else None,
)
def test_a_mistake_is_one_structured_error(
    version: Version, request_: Any, status: int, code: str, field: str | None
) -> None:
    limits = Serve(max_body=10_000, max_k=50, max_characters=200, max_queries=4)
    bad, good = send(application(version, limits), request_, GOOD)
    assert bad.status_code == status, bad.text
    error = ErrorResponse.model_validate_json(bad.content).error
    assert (error.code, error.field) == (code, field)
    assert good.status_code == 200, "the others are served"


def test_routes_and_types_that_are_not_there(version: Version) -> None:
    app = application(version)
    assert send(app, GOOD, **{"content-type": "text/plain"})[0].status_code == 415
    assert get(app, "/v1/retrieve").json()["error"]["code"] == "method_not_allowed"
    for path in (
        "/v2",
        "/assets/../app.py",
        "/assets/%2e%2e%2fapp.py",
        "/assets/",
        "/assets/__init__.py",
    ):
        response = get(app, path)
        assert response.status_code == 404, path
        assert response.json()["error"]["code"] == "not_found"
    assert get(app, "/").headers["content-type"].startswith("text/html")
    assert get(app, "/v1/run").json() == {}


def test_a_bug_is_a_500_that_tells_nothing(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("secret path /srv/x")

    monkeypatch.setattr(version, "answer", broken)
    (response,) = send(application(version), GOOD)
    assert response.status_code == 500
    assert response.json() == {
        "error": {"code": "internal", "message": "the server failed: its log says why", "field": None}
    }


def test_with_a_key_the_api_answers_to_it_alone(version: Version) -> None:
    app = application(version, digest=key_digest("sécret"))
    assert send(app, GOOD)[0].json()["error"]["code"] == "unauthorised"
    assert send(app, GOOD, authorization="Bearer wrong")[0].status_code == 401
    basic = "Basic " + base64.b64encode("r4t:sécret".encode()).decode()
    assert send(app, GOOD, authorization=basic)[0].status_code == 200
    assert get(app, "/metrics").status_code == 401
    assert get(app, "/v1/methods").status_code == 401
    assert get(app, "/readyz").status_code == get(app, "/").status_code == 200


def test_a_replicas_page_is_about_the_run_that_it_is_given(folder: Path) -> None:
    from cluster.serve import replica_app

    run = folder.parent / "run"
    own, given = (get(replica_app([folder], Serve(engine="onnx"), one), "/v1/run").json() for one in (folder, run))
    assert given == json.loads(json.dumps(run_page(run)))
    assert given != own == json.loads(json.dumps(run_page(folder)))


def test_other_origins_are_let_in_only_where_named(version: Version) -> None:
    origin = {"origin": "https://shop.example"}
    assert "access-control-allow-origin" not in get(application(version), "/v1/methods", **origin).headers
    opened_up = application(version, Serve(cors_origins=("https://shop.example",)))
    assert get(opened_up, "/v1/methods", **origin).headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in get(opened_up, "/v1/methods", origin="https://other.example").headers


def test_metrics_count_what_happened(version: Version) -> None:
    app = application(version)
    send(app, GOOD, GOOD | {"method": "mmr"}, {"query": ""})
    text = get(app, "/metrics").text
    assert 'r4t_requests_total{route="/v1/retrieve",status="200"} 2.0' in text
    assert 'r4t_requests_total{route="/v1/retrieve",status="422"} 1.0' in text
    assert 'r4t_sets_total{method="mmr"} 1.0' in text
    assert f'r4t_version{{lineage="{version.lineage}"}} 1.0' in text
    assert "r4t_waiting_queries 0.0" in text


def test_folders_that_cannot_be_served_say_why(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="r4t export RUN DIR"):
        opened(tmp_path)
    export(folder.parent / "run", tmp_path / "bare", onnx=True, items=False)
    with pytest.raises(UserError, match="without --no-items"):
        opened(tmp_path / "bare")
