"""What `r4t status` says of the newest numbers."""

import json
import time
from pathlib import Path

import pytest

from jobs.status import describe, show


@pytest.mark.parametrize(
    ("written", "said"), [(-75.0, "step 3, 75 s ago"), (600.0, "step 3, by a clock that is 600 s ahead")]
)
def test_the_age_of_the_newest_numbers_also_of_a_clock_that_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: float, said: str
):
    now = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    lines = [{"stage": "folm", "step": 3, "time": now + written, "values": {}}]
    lines.append({"stage": "folm", "step": 2, "time": now + written - 9, "values": {}})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert said in show(describe(tmp_path))
