"""A short run of `benchmarks.fuzz` on every reader of foreign input, and the inputs that it once found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.fuzz import Result, check, fuzz
from benchmarks.fuzz_targets import TARGETS, Target

INPUTS = 20_000  # over all targets


@pytest.fixture
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    target: Target = request.param
    target.open(tmp_path)
    return target


by_name = pytest.mark.parametrize("opened", TARGETS, ids=lambda target: target.name, indirect=True)


@by_name
def test_no_input_does_other_than_be_read_or_refused(opened: Target) -> None:
    result = fuzz(opened, max(60, int(INPUTS * opened.share)), seconds=30, seed=1)
    assert result.findings == []
    assert 0 <= result.refused <= result.inputs


@by_name
def test_good_input_is_accepted(opened: Target) -> None:
    assert opened.run(opened.seeds[0]) or opened.name == "manifest"  # whose file is not here: a finding of verify


FOUND = {
    "http_body": [b"Basic cjR0Omt\xd0eQ==", b"[" * 100_000],
    "metrics": [b'{"stage": 1}\n', b"\xff\n", b"null\n", b"[" * 100_000 + b"\n"],
    "config": [b"a: !!bool x", b"a: !!int ''", b"a: 2001-99-99", b"a: !!timestamp x", b"\xff", b"? {a: b}\n: c"],
    "override": [b"a=!!float x", b"=", b".=1", b"a.b.c=1", b"a=[" + b"[" * 5000],
    "csv": [b"ite\xb4_id,text\na,b\n", b"", b"item_id,text\n"],
    "jsonl": [b'{"item_id": "\x90", "text": "x"}\n', b"[" * 5000],
    "parquet": [b"PAR1PAR1", b"PAR1" + b"\xff" * 60 + b"PAR1"],
    "manifest": [b"\xff", b"[" * 100_000, b'{"schema": 1, "files": {"\\u0000": {}}, "inputs": {}}'],
}


@by_name
def test_what_was_found_once_stays_mended(opened: Target) -> None:
    for data in FOUND.get(opened.name, []):
        result = Result(opened.name)
        check(opened, data, result)
        assert result.findings == [], data[:80]


def test_a_damaged_footer_is_refused_and_does_not_end_the_process(tmp_path: Path) -> None:
    """A byte of a column's histogram of levels; pyarrow's accessor of column metadata would abort."""
    parquet = next(target for target in TARGETS if target.name == "parquet")
    parquet.open(tmp_path)
    whole = parquet.seeds[0]
    refused = 0
    for offset in range(len(whole) // 2, len(whole)):
        for change in (1, 0x11, 0x80):
            refused += not parquet.run(whole[:offset] + bytes([whole[offset] ^ change]) + whole[offset + 1 :])
    assert refused > 100


def test_a_crash_and_a_hang_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.fuzz.SLOW", 0.01)

    def bad(data: bytes, _: Path) -> bool:
        if data.startswith(b"s"):
            sum(random.Random(0).random() for _ in range(400_000))
        return bool(1 // len(data))

    target = Target(name="bad", share=1, seeds=[b"s"], words=[b"x"], check=bad)
    result = Result("bad")
    check(target, b"", result)
    check(target, b"slow", result)
    assert result.findings[0].split()[0] == "ZeroDivisionError"
    assert len(result.findings) == 2
