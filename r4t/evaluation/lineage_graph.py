"""Which stage was made from which: read from manifests, and drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from r4t.evaluation.svg import WIDTH, figure, text
from r4t.lineage import MANIFEST, file_hash, read_json

BOX_WIDTH, BOX_HEIGHT, ROW = 114, 44, 84
LEFT_OUT = ("report", "export")  # the one shows the graph, the others are copies
SHORT = 10  # digits of a hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One finished stage; `manifest` is the hash of its manifest, `inputs` the hashes it was made from."""

    name: str
    manifest: str
    code: str
    finished: str
    seconds: float | None = None
    inputs: Mapping[str, str]


def stages_of_run(run_folder: Path) -> list[Stage]:
    """Every finished stage of a run, the earliest first."""
    found = []
    for path in run_folder.rglob(MANIFEST):
        made = read_json(path)
        name = path.parent.relative_to(run_folder).as_posix()
        if made["stage"] not in LEFT_OUT:
            inputs = {key: source["manifest"] for key, source in made["inputs"].items()}
            found.append(_stage(name, file_hash(path), made, inputs, made["metrics"].get("seconds")))
    return sorted(found, key=lambda stage: (stage.finished, stage.name))


def stages_of_export(lineage: Mapping[str, Any]) -> list[Stage]:
    """The stages that an exported retriever's description names."""
    return [_stage(name, made["manifest"], made, made.get("inputs", {})) for name, made in lineage.items()]


def edges(stages: Sequence[Stage]) -> list[tuple[Stage, Stage]]:
    """(source, stage made from it) where the source's manifest is still the recorded one; what another edge implies
    is left out."""
    by_hash = {stage.manifest: stage for stage in stages}
    sources = {s.name: [by_hash[h] for h in s.inputs.values() if h in by_hash] for s in stages}

    def above(stage: Stage) -> set[str]:
        return {name for source in sources[stage.name] for name in (source.name, *above(source))}

    return [
        (source, stage)
        for stage in stages
        for source in sources[stage.name]
        if not any(source.name in above(other) for other in sources[stage.name])
    ]


def changed_sources(stages: Sequence[Stage]) -> list[str]:
    """A line for every input that is no longer the one a stage was made from."""
    hashes = {stage.manifest for stage in stages}
    return [
        f"{stage.name} was made from another {name} ({manifest[:SHORT]}) than the one that is here"
        for stage in stages
        for name, manifest in stage.inputs.items()
        if manifest not in hashes
    ]


def lineage_figure(stages: Sequence[Stage]) -> str:
    """Stages as boxes, sources above what was made from them."""
    links = edges(stages)
    places = _places(stages, links)
    height = max(y for _, y in places.values()) + BOX_HEIGHT + 2
    parts = [_link(places[source.name], places[stage.name]) for source, stage in links]
    parts += [_box(stage, *places[stage.name]) for stage in stages]
    made = {stage.name: [source.name for source, made in links if made is stage] for stage in stages}
    described = "; ".join(f"{name} from {', '.join(sources)}" if sources else name for name, sources in made.items())
    return figure("Stages", f"Lineage: {described}", WIDTH, height, parts, "with the hash of each manifest")


def lineage_list(stages: Iterable[Stage]) -> str:
    """The same as lines, with the code's version and the time."""
    return f'<ul class="plain">{"".join(_line(stage) for stage in stages)}</ul>'


def _stage(
    name: str, manifest: str, made: Mapping[str, Any], inputs: Mapping[str, str], seconds: float | None = None
) -> Stage:
    return Stage(
        name=name,
        manifest=manifest,
        code=made.get("code", ""),
        finished=made.get("finished", ""),
        seconds=seconds,
        inputs=inputs,
    )


def _places(stages: Sequence[Stage], links: Sequence[tuple[Stage, Stage]]) -> dict[str, tuple[float, float]]:
    """Top left corner of every box: a row for each depth, at most three boxes in it."""
    depth = dict.fromkeys((stage.name for stage in stages), 0)
    for _ in stages:  # no path is longer, and stages of the same second stand in any order
        for source, made in links:
            depth[made.name] = max(depth[made.name], depth[source.name] + 1)
    rows: list[list[Stage]] = []
    for level in sorted(set(depth.values())):
        here = [stage for stage in stages if depth[stage.name] == level]
        rows += [here[start : start + 3] for start in range(0, len(here), 3)]
    places = {}
    for number, row in enumerate(rows):
        gap = (WIDTH - BOX_WIDTH * len(row)) / (len(row) + 1)
        for column, stage in enumerate(row):
            places[stage.name] = (gap + column * (BOX_WIDTH + gap), 1.0 + number * ROW)
    return places


def _link(source: tuple[float, float], target: tuple[float, float]) -> str:
    x1, y1 = source[0] + BOX_WIDTH / 2, source[1] + BOX_HEIGHT
    x2, y2 = target[0] + BOX_WIDTH / 2, target[1]
    bend = (y2 - y1) / 2
    head = f"M{x2 - 4:.1f} {y2 - 7:.1f}L{x2:.1f} {y2 - 1:.1f}L{x2 + 4:.1f} {y2 - 7:.1f}"
    curve = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2 - 1:.1f}"
    return f'<path class="edge" d="{curve}{head}"/>'


def _box(stage: Stage, x: float, y: float) -> str:
    middle = x + BOX_WIDTH / 2
    return (
        f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7"/>'
        + text(middle, y + 18, stage.name, "middle", "stage")
        + text(middle, y + 34, stage.manifest[:SHORT], "middle", "hash")
    )


def _line(stage: Stage) -> str:
    seconds = f", {stage.seconds:.0f} s" if stage.seconds is not None else ""
    return (
        f"<li><b>{escape(stage.name)}</b>: manifest <code>{escape(stage.manifest[:16])}</code>,"
        f" code <code>{escape(stage.code)}</code>, finished {escape(stage.finished)}{seconds}</li>"
    )
