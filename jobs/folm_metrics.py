"""The numbers of a training step: rewards, groups, age, and where its wall time went."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cluster.dispatch import Busy
from cluster.groups import Batch
from cluster.weights import Sync
from r4t.collapse import vital_signs
from r4t.config import Config
from r4t.scoring import join_scored


def summary(config: Config, batch: Batch) -> dict[str, float]:
    """Reward, every term, spread inside groups, filtering, collapse signs and length, over all consumed groups."""
    groups = [*batch.kept, *batch.dropped]
    scored = join_scored([group.scored for group in groups])
    completions = [completion for group in groups for completion in group.completions]
    spread = scored.rewards.reshape(len(groups), -1).std(axis=1)
    values = {
        "reward/mean": float(scored.rewards.mean()),
        "reward/group_std": float(spread.mean()),
        "groups/trained": float(len(batch.kept)),
        "groups/dropped": float(len(batch.dropped)),
        "groups/refilled": float(max(0, len(groups) - config.rl.queries_per_step)),
        "groups/first": float(batch.first),
        "groups/stop": float(batch.stop),
        "tokens/answer": float(np.mean([len(c.token_ids) for c in completions])),
        "tokens/truncated": float(np.mean([not c.finished for c in completions])),
        "nll/engine": float(-np.mean(np.concatenate([c.logprobs for c in completions]))),
    }
    values |= vital_signs(scored)
    for name, term in scored.terms.items():
        values[f"reward/{name}"] = float(np.nanmean(term))
        weight = config.objective.weights.get(name, 1.0)
        values[f"spread/{name}"] = float(_mean_spread(term.reshape(len(groups), -1)) * weight)
    return values


def policy_age(batch: Batch, step: int, staleness: int) -> dict[str, float]:
    """Mean and largest age, in versions, of the answers that step `step` consumed. Raises RuntimeError past the bound.

    The slot buffer guarantees the bound (docs/rl.md); an answer past it, or from the future, means a bug in the loop.
    """
    ages = [step - c.policy_version for group in [*batch.kept, *batch.dropped] for c in group.completions]
    if min(ages) < 0 or max(ages) > staleness:
        raise RuntimeError(
            f"answers aged {min(ages)} to {max(ages)} versions reached step {step}, which allows 0 to {staleness}"
        )
    return {"policy_age/mean": float(np.mean(ages)), "policy_age/max": float(max(ages))}


def wall_shares(config: Config, wall: float, busy: Busy, train: float, sync: Sync) -> dict[str, float]:
    """Share of a step's wall time (`wall` seconds) that each activity took, per actor of its kind, and idle times.

    `wall` reaches back to the previous step's numbers, so it holds the checkpoint and validation between them too.
    Actors report their seconds when their work is collected; what was sampled ahead counts in the step that uses it.
    So a single step may exceed 1, means over steps do not.
    """
    rollout = busy.rollout / config.rollout.workers / wall
    load = busy.load / config.rollout.workers / wall
    score = busy.score / config.scorer.workers / wall
    learn, export = train / wall, sync.seconds / wall
    return {
        "step/seconds": wall,
        "share/rollout": rollout,
        "share/score": score,
        "share/train": learn,
        "share/sync": export + load,
        "idle/rollout": max(0.0, 1.0 - rollout - load),
        "idle/scorer": max(0.0, 1.0 - score),
        "idle/learner": max(0.0, 1.0 - learn - export),
    }


def line(step: int, steps: int, values: dict[str, float]) -> str:
    """The one console line of a step."""
    terms = "  ".join(
        f"{k.removeprefix('reward/')} {v:.3f}" for k, v in values.items() if k.startswith("reward/") and v
    )
    learned = ""
    if "learner/seconds" in values:
        learned = (
            f"  ratio {values['learner/ratio_max']:.2f}  clip {values['learner/clipped']:.3f}"
            f"  learn {values['learner/seconds']:.1f}s"
        )
    return (
        f"folm {step}/{steps}  {terms}  valid {values['valid']:.2f}  dropped {values['groups/dropped']:.0f}"
        f"  age {values['policy_age/max']:.0f}{learned}  step {values['step/seconds']:.1f}s"
    )


def _mean_spread(term: Sequence[Sequence[float]] | np.ndarray) -> float:
    """Mean over groups of the standard deviation of a term [groups, samples]; groups without valid answers left out."""
    filled = [row[~np.isnan(row)] for row in np.asarray(term)]
    return float(np.mean([row.std() for row in filled if len(row)]))
