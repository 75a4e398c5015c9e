"""Stage 1: reinforcement learning of the fan-out language model. The loop of R4T; read this file first.

    queries -> rollout workers (vLLM) -- G answers per query --> reward scorers (parse, encode, ONE search, set terms)
                    ^ weights, version v                                  |
               learner ranks (DeepSpeed)  <-- token batch <-- group advantages, zero-variance groups without loss

Every step consumes `queries_per_step` training queries, produces one policy version and ends with its weights on every
rollout worker, so each answer is sampled by the policy that is then trained (synchronous, policy age 0).
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.devices import role_environment
from cluster.launch import gather, launch_group
from cluster.learner import Phase, PolicyLearner
from cluster.roles import Placement, place
from cluster.rollout_actor import start_rollouts
from cluster.scorer import RewardScorer
from cluster.self_test import self_test
from cluster.weights import WeightChannel
from jobs import warm_start as warm
from jobs.run import Run
from r4t.assemble import assemble
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.config import Config
from r4t.lineage import atomic_folder, is_finished, read_json, write_json, write_manifest
from r4t.policy import load_tokenizer
from r4t.scoring import join_scored
from r4t.types import Completion, Ints, ScoredBatch
from r4t.update_stats import merge_ranks


@dataclass(slots=True, kw_only=True)
class Actors:
    """The running actors of the stage."""

    learners: list[Any]
    rollouts: list[Any]
    scorers: list[Any]


def main(config: Config, run: Run) -> None:
    """Warm-starts the policy, trains it with Soft-GRPO and leaves the best validated one in `folm/policy`."""
    folder = run.stage_folder("folm")
    if is_finished(folder):
        run.say("folm: finished, nothing to do")
        return
    started = time.perf_counter()
    dataset = load_dataset(run.folder / "prepare")
    lessons = warm.lessons_for(config, dataset)
    base = warm.initial_policy(config, dataset, lessons, folder / "initial")
    placement = place(config)
    try:
        actors = start_actors(config, run, placement, base)
        if not (folder / "warm_start" / "config.json").is_file():
            warm.warm_start(
                config, run, actors.learners, warm.corpus(config, dataset, lessons, base), base, folder / "warm_start"
            )
        best = reinforce(config, run, dataset, actors, folder)
    finally:
        placement.release()
    write_manifest(
        folder,
        stage="folm",
        config=config.model_dump(mode="json"),
        inputs={"prepare": run.folder / "prepare"},
        files=[
            f"{name}/{file.name}" for name in ("warm_start", "policy") for file in sorted((folder / name).iterdir())
        ],
        metrics=best | {"seconds": time.perf_counter() - started},
    )


def start_actors(config: Config, run: Run, placement: Placement, base: Path) -> Actors:
    """Starts every actor on its seat; they load in parallel while the warm start already trains."""
    scorers = [
        ray.remote(RewardScorer)
        .options(**placement.options(seat, role_environment("scorer", config)))
        .remote(run.folder / "prepare", config)
        for seat in placement.of("scorer")
    ]
    learners = launch_group(PolicyLearner, config, ranks=config.learner.ranks, placement=placement)
    return Actors(learners=learners, rollouts=start_rollouts(config, base, placement), scorers=scorers)


def reinforce(config: Config, run: Run, dataset: Dataset, actors: Actors, folder: Path) -> dict[str, float]:
    """The loop. Resumes from the newest checkpoint; returns the best validation."""
    rl = config.rl
    source = folder / "warm_start"
    tokenizer = load_tokenizer(source)
    phase = Phase(lr=rl.lr, betas=rl.betas, weight_decay=rl.weight_decay, grad_clip=rl.grad_clip)
    gather([learner.begin.remote(source, phase) for learner in actors.learners], config, "learner ranks")
    first, best = resume(config, actors, folder)
    if first:
        run.say(f"folm: resuming at step {first}")
    with (
        WeightChannel(config, actors.learners, actors.rollouts, folder) as channel,
        run.progress("folm", rl.steps) as bar,
    ):
        bar.advance(first)
        channel.publish(first)
        query = int(dataset.split("train")[0])
        self_test(
            config, actors.learners, actors.rollouts, (query, dataset.queries[query].text), tokenizer.pad_token_id
        )
        if not first:
            best = keep_best(config, run, actors, dataset, folder, 0, {})
        for step in range(first, rl.steps):
            rows = training_rows(config, dataset, step)
            completions = sample(config, actors, dataset, rows, version=step, seed=config.seed + 1 + step)
            scored = score(config, actors, completions)
            batch = ray.put(assemble(completions, scored, tokenizer, config))
            lr = rl.lr * min(1.0, (step + 1) / max(rl.warmup_steps, 1))
            learned = merge_ranks(
                gather([learner.update.remote(batch, step, lr) for learner in actors.learners], config, "learner ranks")
            )
            check_mismatch(config, learned["mismatch"])
            sync = channel.publish(step + 1)
            values = summary(config, completions, scored) | {f"learner/{key}": value for key, value in learned.items()}
            values |= {
                "sync/seconds": sync.seconds,
                "sync/bytes": sync.bytes,
                "policy_version": step + 1,
                "policy_age": 0,
            }
            run.log("folm", step + 1, values, line(step + 1, rl.steps, values))
            bar.advance()
            if (step + 1) % rl.validate_every == 0 or step + 1 == rl.steps:
                best = keep_best(config, run, actors, dataset, folder, step + 1, best)
            if (step + 1) % rl.checkpoint_every == 0:
                checkpoint(config, actors, folder, step + 1, best)
    return best


def training_rows(config: Config, dataset: Dataset, step: int) -> Ints:
    """Rows of the training queries of one step: every epoch is a fresh permutation, no query is skipped or repeated."""
    train = dataset.split("train")
    wanted = range(step * config.rl.queries_per_step, (step + 1) * config.rl.queries_per_step)
    epochs = {
        i // len(train): np.random.default_rng([config.seed, i // len(train), 3]).permutation(train) for i in wanted
    }
    return np.array([epochs[i // len(train)][i % len(train)] for i in wanted])


def sample(
    config: Config, actors: Actors, dataset: Dataset, rows: Ints, *, version: int, seed: int, samples: int | None = None
) -> list[Completion]:
    """G answers to every query, spread over the rollout workers; asserts that all come from `version`."""
    queries = [(int(row), dataset.queries[row].text) for row in rows]
    workers = len(actors.rollouts)
    size = -(-len(queries) // workers)
    calls = [
        worker.generate.remote(
            queries[i * size : (i + 1) * size],
            samples=samples or config.rl.group_size,
            temperature=config.rl.temperature,
            seed=seed,
        )
        for i, worker in enumerate(actors.rollouts)
        if queries[i * size : (i + 1) * size]
    ]
    completions = [c for part in gather(calls, config, "rollout workers") for c in part]
    stale = {c.policy_version for c in completions} - {version}
    if stale:
        raise RuntimeError(f"answers of policy versions {sorted(stale)} reached a step that trains version {version}")
    return completions


def score(config: Config, actors: Actors, completions: list[Completion]) -> ScoredBatch:
    """Scores the completions, an equal share on every scorer, and keeps their order."""
    size = -(-len(completions) // len(actors.scorers))
    parts = [completions[start : start + size] for start in range(0, len(completions), size)]
    calls = [
        scorer.score.remote([c.query for c in part], [c.text for c in part])
        for scorer, part in zip(actors.scorers, parts, strict=False)
    ]
    return join_scored(gather(calls, config, "reward scorers"))


def keep_best(
    config: Config, run: Run, actors: Actors, dataset: Dataset, folder: Path, step: int, best: dict[str, float]
) -> dict[str, float]:
    """Validates on held-out queries (same seed every time) and keeps the policy when its reward is the best so far.

    A policy whose sets repeat items a tenth more than the warm start's is never kept: that is collapse, not skill.
    """
    rows = dataset.split("valid")[: config.rl.validate_queries]
    completions = sample(config, actors, dataset, rows, version=step, seed=config.seed, samples=1)
    scored = score(config, actors, completions)
    values = {
        "reward": float(scored.rewards.mean()),
        "distinct": distinct_share(scored),
        "distinct_items": float(len(set(scored.items[:, :, 0].ravel().tolist()) - {-1})),
    }
    values |= {name: float(np.nanmean(term)) for name, term in scored.terms.items()}
    floor = best.get("floor", 0.9 * values["distinct"])
    better = values["reward"] > best.get("reward", -np.inf) and values["distinct"] >= floor
    run.log(
        "valid",
        step,
        values,
        f"valid {step}: reward {values['reward']:.4f} distinct {values['distinct']:.3f}{' *' if better else ''}",
    )
    if not better:
        return best
    warm.save_policy(config, actors.learners, folder / "warm_start", folder / "policy")
    return {"reward": values["reward"], "step": float(step), "floor": floor}


def checkpoint(config: Config, actors: Actors, folder: Path, step: int, best: dict[str, float]) -> None:
    """Writes an atomic checkpoint after `step` steps and drops the oldest beyond `rl.keep_last`."""
    root = folder / "checkpoints"
    root.mkdir(exist_ok=True)
    with atomic_folder(root / f"step-{step:06d}") as temporary:
        gather([learner.save.remote(temporary) for learner in actors.learners], config, "learner ranks")
        gather(
            [learner.export.remote(temporary / "model.safetensors") for learner in actors.learners],
            config,
            "learner ranks",
        )
        write_json(temporary / "state.json", {"step": step, "best": best})
    for old in sorted(root.glob("step-*"))[: -config.rl.keep_last]:
        shutil.rmtree(old)


def resume(config: Config, actors: Actors, folder: Path) -> tuple[int, dict[str, float]]:
    """Restores the newest checkpoint, if any: the number of steps done and the best validation so far."""
    found = sorted((folder / "checkpoints").glob("step-*"))
    if not found:
        return 0, {}
    newest = found[-1]
    gather(
        [learner.load.remote(newest, newest / "model.safetensors") for learner in actors.learners],
        config,
        "learner ranks",
    )
    state = read_json(newest / "state.json")
    return state["step"], state["best"]


def check_mismatch(config: Config, mismatch: float) -> None:
    """Stops a run whose engine does not sample from the learner's weights: training on it would be noise."""
    if mismatch > config.rl.mismatch_limit:
        raise RuntimeError(
            f"rollout engine and learner disagree by {mismatch:.2f} nats per token (rl.mismatch_limit"
            f" {config.rl.mismatch_limit:g}): the weights did not arrive whole, or the two use different precision"
        )


def summary(config: Config, completions: list[Completion], scored: ScoredBatch) -> dict[str, float]:
    """The step's numbers: reward, every term, spread inside groups, validity, diversity alarms, length."""
    groups = scored.rewards.reshape(-1, config.rl.group_size)
    values = {
        "reward/mean": float(scored.rewards.mean()),
        "reward/group_std": float(groups.std(axis=1).mean()),
        "groups/zero_variance": float((groups.std(axis=1) <= config.rl.std_tolerance).sum()),
        "valid": float(np.mean([f.valid for f in scored.fanouts])),
        "distinct": distinct_share(scored),
        "tokens/answer": float(np.mean([len(c.token_ids) for c in completions])),
        "tokens/truncated": float(np.mean([not c.finished for c in completions])),
        "nll/engine": float(-np.mean(np.concatenate([c.logprobs for c in completions]))),
    }
    for name, term in scored.terms.items():
        values[f"reward/{name}"] = float(np.nanmean(term))
        weight = getattr(config.objective.weights, name, 1.0)
        spread = np.nanstd(term.reshape(-1, config.rl.group_size), axis=1)
        values[f"spread/{name}"] = float(np.nanmean(spread) * weight)
    return values


def distinct_share(scored: ScoredBatch) -> float:
    """Mean share of distinct top-1 items in a set, over valid answers."""
    shares = [
        len(set(items[:, 0].tolist())) / len(items)
        for items, fanout in zip(scored.items, scored.fanouts, strict=True)
        if fanout.valid
    ]
    return float(np.mean(shares)) if shares else 0.0


def line(step: int, steps: int, values: dict[str, float]) -> str:
    """The one console line of a step."""
    terms = "  ".join(
        f"{k.removeprefix('reward/')} {v:.3f}" for k, v in values.items() if k.startswith("reward/") and v
    )
    return (
        f"folm {step}/{steps}  {terms}  valid {values['valid']:.2f}"
        f"  ratio {values['learner/ratio_max']:.2f}  clip {values['learner/clipped']:.3f}"
        f"  learn {values['learner/seconds']:.1f}s  sync {values['sync/seconds']:.2f}s"
    )
