"""The reward for other trainers is the training reward, of the answer alone, and says what is wrong with its input."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from interop_fixtures import QUERIES, WordHashes, answer, configuration, prompt, reward

from r4t.errors import UserError
from r4t.interop.reward import answer_in, open_reward
from r4t.interop.service import RewardService


def test_rewards_and_terms_are_the_scorers() -> None:
    own = reward()
    answers = [answer(seed) for seed in range(4)] + ["nothing to read"]
    rows = [0, 1, 2, 3, 0]
    asked = [own.ask(prompt(row) + text, prompt(row), f"q{row}") for row, text in zip(rows, answers, strict=True)]
    judged = own.score(asked)
    scored = own.scorer.score(rows, answers)
    assert [one.reward for one in judged] == scored.rewards.tolist()
    for name, values in scored.terms.items():
        assert [one.logs[f"r4t/{name}"] for one in judged] == np.nan_to_num(values, nan=0.0).tolist()
    assert [one.logs["r4t/valid"] for one in judged] == [1, 1, 1, 1, 0]
    assert judged[-1].reward == own.scorer.config.objective.invalid_reward


def test_every_answer_logs_the_same_names_whether_it_can_be_read_or_not() -> None:
    own = reward()
    good, bad = own.ask(prompt(0) + answer(0), prompt(0), "q0"), own.ask(prompt(0) + "?", prompt(0), "q0")
    assert own.score([good])[0].logs.keys() == own.score([bad])[0].logs.keys()
    assert {"r4t/diversity", "r4t/content_alignment", "r4t/valid"} <= own.score([bad])[0].logs.keys()


def test_the_prompts_example_is_not_an_answer() -> None:
    own, asked = reward(), prompt(1, "paper")
    assert "<queries>" in asked
    (judged,) = own.score([own.ask(asked + "I do not know.", asked, "q1")])
    assert judged.logs["r4t/valid"] == 0


@pytest.mark.parametrize("style", ["compact", "paper"])
def test_the_answer_is_found_behind_a_prompt_that_decoding_changed(style: str) -> None:
    asked, text = prompt(0, style), answer(5)
    folded = f" {asked.lower()}".replace('"', "")
    assert answer_in(asked + text, asked) == text
    assert answer_in(folded + text, asked) == text
    assert answer_in(asked[-30:] + text + "<end>", asked) == text + "<end>", "cut on the left, still to its end"
    assert answer_in(f"{folded}{text}</broad_query>", asked) == f"{text}</broad_query>"


def test_bad_input_says_what_to_do() -> None:
    own = reward()
    text = prompt(0) + answer(0)
    for label in (None, ""):
        with pytest.raises(UserError, match=r"without a label.*--data\.label_key label"):
            own.ask(text, prompt(0), label)
    for label in ("q99", 3, ["q0"]):
        with pytest.raises(UserError, match=r"names no query of this dataset of 4"):
            own.ask(text, prompt(0), label)
    with pytest.raises(UserError, match=r"does not hold the query 'warm dinner'.*template hides it"):
        own.ask("User: go on" + answer(0), "User: go on", "q0")
    with pytest.raises(UserError, match=r"different rows"):
        own.ask(prompt(1) + answer(0), prompt(1), "q0")
    with pytest.raises(UserError, match=r"does not hold its prompt to the end.*--data\.max_len"):
        own.ask("<broad_query>warm", prompt(0), "q0")
    with pytest.raises(UserError, match=r"runs/x is no run directory|no config at"):
        open_reward(Path("runs/x"))


def test_a_whitespace_or_case_change_of_the_template_hides_nothing() -> None:
    own = reward()
    wrapped = f"<|user|>\n{prompt(0).upper()}\n<|assistant|>\n"
    assert own.ask(wrapped + answer(0), wrapped, "q0").answer == answer(0)


def test_a_reward_that_is_no_number_is_an_error() -> None:
    own = reward(configuration(invalid_reward=float("nan")))
    with pytest.raises(RuntimeError, match="is nan"):
        own.score([own.ask(prompt(0) + "?", prompt(0), "q0")])


def test_concurrent_calls_are_encoded_together_and_errors_stay_with_their_caller() -> None:
    own = reward()
    encoder = own.scorer.encoder
    assert isinstance(encoder, WordHashes)
    service = RewardService(own, wait=1.0, most=31)
    before = encoder.calls

    async def ask() -> list[object]:
        rows = [i % len(QUERIES) for i in range(32)]
        calls = [
            service.judge_async([prompt(row) + answer(i)], [prompt(row)], [f"q{row}" if i else "absent"])
            for i, row in enumerate(rows)
        ]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, *rest = asyncio.run(ask())
    assert isinstance(first, UserError)
    expected = own.scorer.score([i % len(QUERIES) for i in range(1, 32)], [answer(i) for i in range(1, 32)]).rewards
    assert [one[0].reward for one in rest] == pytest.approx(expected.tolist(), abs=1e-6)  # type: ignore[index]
    assert encoder.calls == before + 2, "one call for all 31, and this test's own"
    assert service.stats() == {"calls": 31, "entries": 31, "batches": 1, "largest": 31, "errors": {"UserError": 1}}
    service.close()
    with pytest.raises(RuntimeError, match="closed"):
        service.judge([prompt(0) + answer(0)], [prompt(0)], ["q0"])


def test_as_many_prompts_and_labels_as_answers() -> None:
    service = RewardService(reward())
    with pytest.raises(UserError, match="2 answers came with 1 prompts and 2 labels"):
        service.judge(["a", "b"], ["p"], ["q0", "q1"])
