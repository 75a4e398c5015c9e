"""The language model of a finished run, as the endpoint's method r4t_folm asks it."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.devices import role_environment
from cluster.engine import PromptTokens, open_engine
from r4t.config import load_config
from r4t.errors import UserError
from r4t.fanout import parse
from r4t.policy import load_tokenizer
from r4t.seats import gpus
from r4t.serving.lineage import policy_lineage
from r4t.serving.methods import Writer


def open_writer(run: Path) -> Writer:
    """The run's policy in an engine inside this process, sampled as in the evaluation.

    A query whose prompt leaves no room for an answer gets none, as one whose answer is unusable. Raises UserError where
    the run has no policy or its engine cannot run here.
    """
    lineage = policy_lineage(run)
    config = load_config(run / "config.yaml")
    os.environ.update(role_environment("rollout", config))
    policy = run / "folm" / "policy"
    engine = open_engine(policy, config)
    prompts = PromptTokens(load_tokenizer(policy), config)
    one_at_a_time = threading.Lock()  # a new version warms up in one thread while requests are worked on in another

    def write(queries: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, ...]]:
        answers: list[tuple[str, ...]] = [()] * len(queries)
        with one_at_a_time:
            places = [place for place, text in enumerate(queries) if _fits(prompts, text)]
            # The engine draws a query's answer from the number of its row: here the seed of its request.
            asked = [(seeds[place], queries[place]) for place in places]
            sampling = {"samples": 1, "temperature": config.evaluate.temperature, "seed": config.seed}
            written = engine.generate(asked, **sampling, logprobs=False) if asked else []  # type: ignore[arg-type]
        for place, completion in zip(places, written, strict=True):
            fanout = parse(completion.text, config.fanout.k)
            answers[place] = fanout.subqueries if fanout.valid else ()
        return answers

    return Writer(write=write, lineage=lineage)


def writer_options(run: Path) -> dict[str, Any]:
    """What the Ray actor needs that opens the run's policy. Raises UserError as `policy_lineage`."""
    policy_lineage(run)
    config = load_config(run / "config.yaml")
    return {"num_gpus": gpus("rollout", config), "runtime_env": {"env_vars": role_environment("rollout", config)}}


def _fits(prompts: PromptTokens, text: str) -> bool:
    try:
        prompts(text)
    except UserError:
        return False
    return True
