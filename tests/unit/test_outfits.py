"""Categories and fill-in-the-blank: what people labelled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from r4t.catalog.fill_in_blank import BlankQuestion, read_blanks
from r4t.errors import UserError
from r4t.evaluation.outfits import category_coverage, category_share, fill_in_blank, given_blanks, made_blanks

OUTFITS = [(0, 1, 2), (3, 4), (5,), (6, 7, 8, 9)]
IDS = [f"{outfit}_{place}" for outfit, rows in enumerate(OUTFITS) for place in range(1, len(rows) + 1)]


def test_categories_are_counted_once_and_missing_ones_never() -> None:
    kinds = np.array([[0, 0, 1, -1], [-1, -1, -1, -1]])
    assert category_share(kinds).tolist() == [0.5, 0.0]
    coverage = category_coverage(kinds, [np.array([0, 2, -1]), np.array([-1])])
    assert coverage[0] == 0.5
    assert np.isnan(coverage[1])


def test_made_questions_take_one_item_out_and_three_from_other_sets() -> None:
    questions = made_blanks(OUTFITS, seed=0)
    assert questions[2].tolist() == [-1] * 4, "a set of one item has nothing left to ask about"
    for b in (0, 1, 3):
        assert questions[b, 0] in OUTFITS[b]
        assert not set(questions[b, 1:]) & set(OUTFITS[b])
        assert len(set(questions[b].tolist())) == 4
    np.testing.assert_array_equal(questions, made_blanks(OUTFITS, seed=0))
    assert any(not np.array_equal(questions, made_blanks(OUTFITS, seed)) for seed in range(1, 5))


def test_the_answer_is_the_candidate_nearest_to_any_row() -> None:
    items = np.eye(4, 6, dtype=np.float32)
    questions = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [-1] * 4])
    rows = np.zeros((4, 2, 6), dtype=np.float32)
    rows[0, 1, 0] = 1.0  # the second row points at the answer
    rows[1, 0, 2] = 1.0
    rows[2, 0, [0, 1]] = 0.7  # two candidates tie
    assert fill_in_blank(rows, questions, items)[:3].tolist() == [1.0, 0.0, 0.5]
    assert np.isnan(fill_in_blank(rows, questions, items)[3])


def test_blind_rows_answer_a_quarter() -> None:
    rng = np.random.default_rng(0)
    items = rng.normal(size=(400, 16)).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    outfits = [tuple(rng.choice(400, 4, replace=False).tolist()) for _ in range(2000)]
    rows = rng.normal(size=(2000, 3, 16)).astype(np.float32)
    assert fill_in_blank(rows, made_blanks(outfits, 1), items).mean() == pytest.approx(0.25, abs=0.03)


def test_given_questions_find_their_outfit_and_no_other() -> None:
    asked = [
        BlankQuestion(items=("0_1", "0_3"), choices=("0_2", "1_1", "3_1", "3_2")),
        BlankQuestion(items=("0_1",), choices=("0_3", "1_1", "3_1", "3_2")),  # the second about the same outfit
        BlankQuestion(items=("1_1", "3_1"), choices=("1_2", "0_1", "0_2", "0_3")),  # items of two outfits
        BlankQuestion(items=("3_1",), choices=("3_2", "0_1", "0_2", "gone")),
    ]
    questions = given_blanks(asked, OUTFITS, IDS)
    assert questions.tolist() == [[1, 3, 6, 7], [-1] * 4, [-1] * 4, [-1] * 4]


def test_the_official_layout_is_read_from_json_and_parquet(tmp_path: Path) -> None:
    rows = [{"question": ["0_1", "0_3"], "blank_position": 2, "answers": ["0_2", "1_1", "3_1", "3_2"]}]
    (tmp_path / "fill_in_blank_test.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    expected = [BlankQuestion(items=("0_1", "0_3"), choices=("0_2", "1_1", "3_1", "3_2"))]
    assert read_blanks(tmp_path / "fill_in_blank_test.json") == expected
    assert read_blanks(tmp_path / "q.parquet") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "list of questions"),
        ('[{"question": ["a"], "answers": ["b", "c", "d"]}]', "question 0 needs"),
        ('[{"question": [], "answers": ["b", "c", "d", "e"]}]', "question 0 needs"),
        ('[{"question": ["a"], "answers": ["b", "b", "d", "e"]}]', "question 0 needs"),
        ("[3]", "question 0 needs"),
    ],
)
def test_unusable_questions_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "q.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_blanks(tmp_path / "q.json")
    with pytest.raises(UserError, match=r"evaluate\.fill_in_blank"):
        read_blanks(tmp_path / "none.parquet")
