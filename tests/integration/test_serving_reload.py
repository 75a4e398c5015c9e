"""New versions of what is served: they take over under load, whole, or not at all."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

from serving_fixtures import application, found, opened, running, send

from benchmarks.serve_reload import changing
from benchmarks.versions import answers_of, matches, variant, variants
from jobs.export import export
from r4t.config import Serve
from r4t.serving.app import serving_app
from r4t.serving.service import Service
from r4t.serving.watch import Watcher


def test_versions_that_differ_take_over_and_every_answer_is_of_the_one_it_names(folder: Path, tmp_path: Path) -> None:
    """In turn other items and other items with other weights, under load; nothing is asked twice."""
    texts = ["leek", "rice soup", "warm mint", "raw apple"]
    served = Path(shutil.copytree(folder, tmp_path / "served"))
    others = variants(folder, tmp_path, 4)
    known = answers_of([folder, *others], texts, 4)
    assert len({str(sets) for sets in known.values()}) == 5, "no two versions answer alike"
    settings = Serve(watch=0.05)
    service = Service(opened(served), settings)
    outcomes: list[str] = []
    watcher = Watcher([served], lambda: opened(served), service, settings.watch, outcomes.append)
    with running(serving_app(service, settings, watcher=watcher)) as url:
        found = asyncio.run(changing(url, served, [*others, others[0]], known, texts, k=4, pause=0.3))
    assert set(found.statuses) == {"200"}, found.statuses
    assert found.wrong == []
    assert outcomes == ["taken"] * 5
    assert set(found.versions) == set(known), "every version answered, and no other"


def test_an_answer_that_mixes_two_versions_is_told_from_one_that_does_not(folder: Path, tmp_path: Path) -> None:
    made = variant(folder, tmp_path / "other", "@other")
    one, two = (found(send(application(opened(its)), {"query": "leek", "k": 4})[0]) for its in (folder, made))
    known = answers_of([folder, made], ["leek"], 4)
    assert matches(one, known, [0])
    assert matches(two, known, [0])
    assert not matches(one | {"lineage": two["lineage"]}, known, [0]), "another version's items"
    assert not matches(one | {"lineage": "unknown"}, known, [0])
    moved = [item | {"score": item["score"] + 1e-3} for item in one["sets"][0]["items"]]
    assert not matches(one | {"sets": [{"items": moved}]}, known, [0]), "another version's scores"


def test_a_version_that_cannot_be_opened_leaves_the_old_one(folder: Path, tmp_path: Path) -> None:
    served = Path(shutil.copytree(folder, tmp_path / "served"))
    service = Service(opened(served), Serve())
    outcomes: list[str] = []
    watcher = Watcher([served], lambda: opened(served), service, 1.0, outcomes.append)
    lineage = service.version.lineage
    assert not watcher.look(), "nothing new"
    manifest = json.loads((served / "manifest.json").read_text())
    (served / "model.onnx").write_bytes(b"broken")
    (served / "manifest.json").write_text(json.dumps(manifest | {"finished": "later"}))
    assert not watcher.look()
    assert not watcher.look()
    assert outcomes == ["failed"], "said once"
    assert service.version.lineage == lineage
    (served / "manifest.json").unlink()
    assert not watcher.look()
    service.close()


def test_a_watcher_that_was_stopped_takes_no_version(folder: Path, tmp_path: Path) -> None:
    served = Path(shutil.copytree(folder, tmp_path / "served"))
    service = Service(opened(served), Serve())
    watcher = Watcher([served], lambda: opened(served), service, 1.0)
    lineage = service.version.lineage
    export(folder.parent / "run", served, onnx=True)
    watcher.stop()
    assert not watcher.look()
    assert service.version.lineage == lineage
    service.close()
