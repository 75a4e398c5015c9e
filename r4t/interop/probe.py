"""Whether a reward server is up, answers in time, in the right shape, and with this run's rewards."""

from __future__ import annotations

import math
from typing import Any

import httpx

from r4t.errors import UserError
from r4t.fanout import build_prompt, format_answer
from r4t.interop.reward import SetReward
from r4t.interop.urls import shown

TIMEOUT = 20.0  # seconds; OpenRLHF itself would wait 180, five times
TOLERANCE = 1e-3  # of a reward: another machine's arithmetic


def check_server(url: str, reward: SetReward, timeout: float = TIMEOUT) -> None:
    """Asks the server at `url` to score one made-up answer. Raises UserError unless it says what `reward` does."""
    query, fanout = reward.scorer.dataset.queries[reward.example], reward.scorer.config.fanout
    prompt = build_prompt(
        query.text, style=fanout.prompt, task=reward.scorer.config.task, domain=fanout.domain, k=fanout.k
    )
    text = prompt + format_answer([query.text])
    answer = _post(url, {"query": [text], "prompts": [prompt], "labels": [query.query_id]}, timeout)
    (own,) = reward.score([reward.ask(text, prompt, query.query_id)])
    if not abs(_reward(url, answer) - own.reward) < TOLERANCE:
        raise UserError(
            f"the reward server at {shown(url)} gives {_reward(url, answer):.4f} where this run's objective gives"
            f" {own.reward:.4f}: it serves another run or configuration; start `r4t serve-reward` on this one"
        )


def _post(url: str, body: dict[str, Any], timeout: float) -> Any:
    try:
        response = httpx.post(url, json=body, timeout=timeout, trust_env=False)
    except httpx.TimeoutException:
        raise UserError(
            f"the reward server at {shown(url)} did not answer within {timeout:g} s: see its log, start more of them"
            " (commas between their URLs), or give it a machine of its own"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UserError(
            f"no reward server answers at {shown(url)} ({type(error).__name__}): start one with `r4t serve-reward RUN`"
            " and give the URL that it prints"
        ) from None
    if response.status_code != httpx.codes.OK:
        raise UserError(f"the reward server at {shown(url)} answered {response.status_code}: {response.text[:300]}")
    try:
        return response.json()
    except ValueError:
        raise UserError(f"the reward server at {shown(url)} did not answer in JSON: {response.text[:100]!r}") from None


def _reward(url: str, answer: Any) -> float:
    rewards = answer.get("rewards") if isinstance(answer, dict) else None
    if not isinstance(rewards, list) or len(rewards) != 1 or not _is_number(rewards[0]):
        raise UserError(
            f"the reward server at {shown(url)} answered {str(answer)[:100]!r} to one answer, where"
            ' {"rewards": [number]} is expected: is it `r4t serve-reward`, and does the URL end with /get_reward?'
        )
    return float(rewards[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
