"""The table of faults and stages, from the lines that a run of the benchmark left."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """All whole lines; of an attempt that has no end, none."""
    if not path.is_file():
        return []
    records = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    ended = {record["attempt"] for record in records if record["record"] == "end"}
    return [record for record in records if record["attempt"] in ended]


def table(records: Sequence[Record]) -> str:
    """A row for each fault in each stage: how many, how many needed the command again, and how long it took."""
    faults = [record for record in records if record["record"] == "fault"]
    ends = {record["attempt"]: record for record in records if record["record"] == "end"}
    lines = [
        "| stage | fault | to | times | command given again | recovery, s: median, most | attempts with a problem |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage, kind, role in sorted({(one["stage"], one["kind"], one["role"]) for one in faults}):
        same = [one for one in faults if (one["stage"], one["kind"], one["role"]) == (stage, kind, role)]
        seconds = [one["recovery_s"] for one in same]
        wrong = len({one["attempt"] for one in same if ends[one["attempt"]]["problems"]})
        again = sum(one["restarted"] for one in same)
        taken = f"{statistics.median(seconds):.0f}, {max(seconds):.0f}"
        lines.append(f"| {stage} | {kind} | {role} | {len(same)} | {again} | {taken} | {wrong} |")
    return "\n".join(lines)


def summary(records: Sequence[Record]) -> str:
    """How much was done, and every problem."""
    faults = sum(record["record"] == "fault" for record in records)
    ends = [record for record in records if record["record"] == "end"]
    found = [f"- attempt {end['attempt']}, {end['stage']}: {problem}" for end in ends for problem in end["problems"]]
    text = f"{faults} faults in {len(ends)} attempts, {sum(end['seconds'] for end in ends) / 60:.0f} minutes."
    return "\n".join([text, "", *found]) if found else f"{text} Nothing was lost, doubled, changed or hung."


def write(source: Path, page: Path | None) -> None:
    """Prints the table, or writes it into `page` between its two marks."""
    records = read(source)
    text = f"{summary(records)}\n\n{table(records)}\n"
    if page is None:
        print(text)
        return
    whole = page.read_text()
    before, _, rest = whole.partition("<!-- chaos -->\n")
    _, mark, after = rest.partition("<!-- /chaos -->")
    if not mark:
        raise ValueError(f"{page} has no <!-- chaos --> and <!-- /chaos -->")
    page.write_text(f"{before}<!-- chaos -->\n{text}{mark}{after}")
