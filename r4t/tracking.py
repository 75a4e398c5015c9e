"""Where a run's numbers go: always a JSON-lines file, and any further sink."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from r4t.errors import UserError
from r4t.full_disk import LineFile


class Sink(Protocol):
    """Receives which stage begins, the numbers of its steps, that it advances, and its folder once it has finished."""

    def began(self, stage: str) -> None: ...

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...

    def advanced(self) -> None: ...

    def finished(self, stage: str, folder: Path) -> None: ...

    def close(self) -> None: ...


class MetricsFile:
    """`metrics.jsonl`: one line per step."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lines = LineFile(path)

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Appends `{"stage", "step", "time", "values"}`. A number that is not finite becomes null.

        Raises UserError where the disk is full.
        """
        finite = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        line = {"stage": stage, "step": int(step), "time": round(time.time(), 3), "values": finite}
        self._lines.append(json.dumps(line))

    def began(self, stage: str) -> None:
        """Nothing: every line names its stage."""

    def advanced(self) -> None:
        """Nothing: only numbers are kept."""

    def finished(self, stage: str, folder: Path) -> None:
        """Nothing: the stage's own manifest says it all."""

    def close(self) -> None:
        self._lines.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file, in the order of their first appearance.

    A step that a resumed run repeated counts once, with its last values: a line takes the place of an earlier one of
    the same stage and step that shares a name with it. Raises UserError for a line that `MetricsFile` never writes.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]
    found: list[dict[str, Any]] = []
    places: dict[tuple[str, int], list[int]] = {}
    for number, text in enumerate(lines, start=1):
        line = _parsed(text)
        if line is None:
            raise UserError(f"{path}: line {number} is damaged: take it out, or restore the file")
        same = places.setdefault((line["stage"], line["step"]), [])
        repeated = next((i for i in same if found[i]["values"].keys() & line["values"].keys()), None)
        if repeated is None:
            same.append(len(found))
            found.append(line)
        else:
            found[repeated] = line
    return found


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    shaped = isinstance(line, dict) and isinstance(line.get("stage"), str) and type(line.get("step")) is int
    return line if shaped and isinstance(line.get("values"), dict) else None
