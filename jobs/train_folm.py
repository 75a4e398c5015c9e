"""Stage 1: reinforcement learning of the fan-out language model. The loop of R4T; read this file first.

    query stream -> [slots] -> rollout workers (vLLM) -- G answers per query --> reward scorers
                       ^            ^ weights, version v                     parse, encode, ONE search, set terms
                       |            |                                             |
                  freed when    learner ranks (DeepSpeed)  <-- token batch <-- groups in the stream's order,
                  published         updates_per_batch steps                    uninformative ones dropped and refilled

One loop serves every `rl.staleness`. A step takes the oldest `queries_per_step` informative groups, trains on them, and
publishes the next version. With staleness 0 nothing is in flight while the learners train; with 1, the next step's
groups are: they were submitted before the update began. The slot buffer makes the bound exact (docs/rl.md).

piece              consumes                  produces               blocked by
GroupSource.fill   the query stream          calls to workers       a free slot
Dispatch.collect   a chunk's pending calls   scored groups          its rollout worker, then the scorers
GroupSource.take   scored groups, in order   a batch for one step   the oldest group; refills
learner.update     a token batch             a policy version       the batch
channel.publish    the learners' weights     loads on all workers   the export; the loads only queue up
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from transformers import PreTrainedTokenizerBase

from cluster.dispatch import Dispatch, Draw
from cluster.groups import Batch, GroupSource
from cluster.index_shards import shard_roll
from cluster.launch import ActorsLost, gather
from cluster.learner import Phase
from cluster.preemption import Notices
from cluster.roles import place
from cluster.self_test import ENGINES, self_test
from cluster.watch import LEARNERS, Actors
from cluster.weights import WeightChannel
from jobs import warm_start as warm
from jobs.folm_metrics import line, policy_age, summary, wall_shares
from jobs.folm_state import Progress, checkpoint, resume
from jobs.run import Run
from jobs.stopping import Stop, stop_at_boundary
from r4t.assemble import assemble
from r4t.catalog.dataset import Dataset, load_dataset
from r4t.collapse import MODES, alarms, failure_modes, vital_signs
from r4t.config import RL, Config
from r4t.evaluation.judge import LiveJudge
from r4t.evaluation.training_samples import KEPT, sample_files, save_samples
from r4t.lineage import is_finished, write_manifest
from r4t.policy import load_tokenizer
from r4t.scoring import join_scored
from r4t.types import ScoredBatch
from r4t.update_stats import merge_ranks


def main(config: Config, run: Run) -> None:
    """Warm-starts the policy, trains it with Soft-GRPO and leaves the best validated one in `folm/policy`."""
    folder = run.stage_folder("folm")
    if is_finished(folder):
        run.say("folm: finished, nothing to do")
        return
    started = time.perf_counter()
    dataset = load_dataset(run.folder / "prepare")
    lessons = warm.lessons_for(config, dataset)
    base = warm.initial_policy(config, dataset, lessons, run.folder / "prepare", folder / "initial", run.say)
    with started_actors(config, run, base) as actors:
        if not warm.is_whole(folder / "warm_start", run.say):
            corpus = warm.corpus(config, dataset, lessons, base)
            actors.surviving(lambda: warm.warm_start(config, run, actors.learners, corpus, base, folder / "warm_start"))
        best = reinforce(config, run, dataset, actors, folder)
    write_manifest(
        folder,
        stage="folm",
        config=config.model_dump(mode="json"),
        inputs={"prepare": run.folder / "prepare"},
        files=[file.relative_to(folder).as_posix() for file in _outputs(folder)],
        metrics=best | {"seconds": time.perf_counter() - started},
    )


def _outputs(folder: Path) -> list[Path]:
    return [*(folder / "warm_start").iterdir(), *(folder / "policy").iterdir(), *sample_files(folder)]


@contextmanager
def started_actors(config: Config, run: Run, base: Path) -> Iterator[Actors]:
    """Every actor on its seat; they load in parallel while the warm start already trains."""
    placement = place(config)
    try:
        with shard_roll(config, run.say) as roll:
            actors = Actors(config, placement, run.folder / "prepare", base, run.say, roll)
            yield actors
            actors.stop()
    finally:
        placement.release()


def reinforce(config: Config, run: Run, dataset: Dataset, actors: Actors, folder: Path) -> dict[str, float]:
    """Trains up to `rl.steps` and returns the best validation. Goes back to the newest checkpoint when it starts in a
    folder that has one, and whenever learner ranks are lost. SIGTERM: a checkpoint, then SystemExit with 143."""
    with stop_at_boundary() as stop:
        return actors.surviving(lambda: train(config, run, dataset, actors, folder, stop))


def train(config: Config, run: Run, dataset: Dataset, actors: Actors, folder: Path, stop: Stop) -> dict[str, float]:
    """The loop, from the newest checkpoint to the last step."""
    rl = config.rl
    source = folder / "warm_start"
    tokenizer = load_tokenizer(source)
    phase = Phase(lr=rl.lr, betas=rl.betas, weight_decay=rl.weight_decay, grad_clip=rl.grad_clip)
    gather([learner.begin.remote(source, phase) for learner in actors.learners], config, LEARNERS)
    progress = resume(config, dataset, actors, folder, run.say)
    notices = Notices(actors.learners)
    judge = LiveJudge(config, dataset)
    if progress.step:
        run.say(f"folm: resuming at step {progress.step}")
    with (
        WeightChannel(config, actors.learners, actors.rollouts, folder) as channel,
        run.progress("folm", rl.steps, progress.step) as bar,
    ):
        run.advanced()  # that the actors have started is progress too
        dispatch = Dispatch(config, actors, channel)
        groups = GroupSource(config, dataset, dispatch, step=progress.step, consumed=progress.consumed)
        channel.publish(progress.step)
        prove_engines(config, run, actors, channel, dataset, tokenizer)
        mark = time.perf_counter()
        groups.fill()
        progress = validate(config, run, actors, dispatch, judge, dataset, folder, progress)
        while progress.step < rl.steps:
            step = progress.step
            batch = groups.take()
            values = summary(config, batch) | policy_age(batch, step, rl.staleness)
            learned = learn(config, run, actors, groups, batch, step, tokenizer)
            sync = channel.publish(step + 1)
            groups.published()
            groups.fill()  # with staleness, what is submitted here is sampled while the learners train the next step
            progress = replace(progress, step=step + 1, consumed=batch.stop)
            values |= {f"learner/{key}": value for key, value in learned.items()}
            values |= {"sync/seconds": sync.seconds, "sync/bytes": sync.bytes, "policy_version": step + 1}
            wall, mark = time.perf_counter() - mark, time.perf_counter()
            values |= wall_shares(config, wall, dispatch.busy.take(), learned.get("seconds", 0.0), sync)
            values["restarts"] = sum(actors.restarts.values())
            run.log("folm", step + 1, values, line(step + 1, rl.steps, values))
            bar.advance()
            if leaving := notices.leaving():
                run.say(f"folm: {leaving} and holds learner ranks: checkpoint after step {step + 1}")
            if (step + 1) % rl.checkpoint_every == 0 or stop.requested or leaving:
                checkpoint(config, actors, folder, progress, groups)
            if stop.requested:
                run.say(f"folm: stopped by SIGTERM after step {step + 1}; the same command resumes the run")
                raise stop.exit
            # After the checkpoint, so that a resumed run does here what this one does, in the same order.
            progress = validate(config, run, actors, dispatch, judge, dataset, folder, progress)
    return progress.best


def prove_engines(
    config: Config, run: Run, actors: Actors, channel: WeightChannel, dataset: Dataset, tok: PreTrainedTokenizerBase
) -> None:
    """Before anything is trained: every engine holds and computes what the learners do. One that dies is replaced."""
    row = int(dataset.split("train")[0])
    query = (row, dataset.queries[row].text)
    while True:
        try:
            gap = self_test(config, actors.learners, actors.rollouts, query, tok.pad_token_id)
        except ActorsLost as lost:
            if lost.who != ENGINES:
                raise
            for index in lost.missing:
                actors.restart_rollout(index, channel, str(lost))
        else:
            run.say(f"folm: every rollout engine equals the learner bit for bit (within {gap:.1g} nats per token)")
            return


def learn(
    config: Config, run: Run, actors: Actors, groups: GroupSource, batch: Batch, step: int, tok: PreTrainedTokenizerBase
) -> dict[str, float]:
    """Trains on a batch, and judges the next step's groups meanwhile. Without informative groups: nothing, and `{}`.

    A short batch keeps its shape, so it divides over updates and ranks as ever: filtered groups stand in, masked.
    """
    if not batch.kept:
        run.say(f"folm: step {step + 1} found no informative group among {len(batch.dropped)}: nothing to train on")
        return {}
    padded = batch.padded(config.rl.queries_per_step)
    completions = [completion for group in padded for completion in group.completions]
    tokens = ray.put(assemble(completions, join_scored([group.scored for group in padded]), tok, config))
    lr = learning_rate(config.rl, step)
    calls = [learner.update.remote(tokens, step, lr) for learner in actors.learners]
    groups.work_ahead(calls)
    learned = merge_ranks(gather(calls, config, LEARNERS))
    check_mismatch(config, learned["mismatch"])
    return learned


def learning_rate(rl: RL, step: int) -> float:
    """Learning rate of one rollout batch: a linear warm-up, then a straight line from `lr` to `final_lr`."""
    if step < rl.warmup_steps:
        return rl.lr * (step + 1) / rl.warmup_steps
    final = rl.lr if rl.final_lr is None else rl.final_lr
    return rl.lr + (final - rl.lr) * (step - rl.warmup_steps) / max(1, rl.steps - 1 - rl.warmup_steps)


def validate(
    config: Config,
    run: Run,
    actors: Actors,
    dispatch: Dispatch,
    judge: LiveJudge,
    dataset: Dataset,
    folder: Path,
    progress: Progress,
) -> Progress:
    """Where one is due: validates on held-out queries (same seed every time), and keeps the policy when its reward is
    the best so far and no sign of collapse shows against the warm-started policy. Returns the progress with both."""
    rl, step = config.rl, progress.step
    if step % rl.validate_every and step != rl.steps:
        return progress
    rows = dataset.split("valid")[: rl.validate_queries].tolist()
    draws = [Draw(key=row, row=row, text=dataset.queries[row].text) for row in rows]
    chunks = dispatch.send(draws, samples=1, seed=config.seed, chunk=-(-len(draws) // len(actors.rollouts)))
    groups = [group for chunk in chunks for group in dispatch.collect(chunk)]
    stale = {c.policy_version for group in groups for c in group.completions} - {step}
    if stale:
        raise RuntimeError(f"answers of policy versions {sorted(stale)} reached the validation of version {step}")
    scored = join_scored([group.scored for group in groups])
    values = {"reward": float(scored.rewards.mean())} | vital_signs(scored)
    values |= {name: float(np.nanmean(term)) for name, term in scored.terms.items()}
    values |= judged(judge, rows, scored, rl.judge_queries)
    save_samples(folder, step, samples_of(dataset, rows, scored))
    start = progress.start or dict(values)
    raised, modes = alarms(values, start, rl.alarms), failure_modes(values, start, rl.alarms)
    values |= {f"alarm/{name}": float(name in raised) for name in type(rl.alarms).model_fields}
    values |= {f"mode/{name}": float(name in modes) for name in MODES}
    better = not raised and values["reward"] > progress.best.get("reward", -np.inf)
    note = f"  collapse alarm: {', '.join(raised)}" if raised else " *" if better else ""
    note += f"  looks like {', '.join(modes).replace('_', ' ')}" if modes else ""
    run.log(
        "valid", step, values, f"valid {step}: reward {values['reward']:.4f} distinct {values['distinct']:.3f}{note}"
    )
    if not better:
        return replace(progress, start=start)
    best = {"reward": values["reward"], "step": float(step)}
    warm.save_policy(config, actors.learners, folder / "warm_start", folder / "policy", best)
    return replace(progress, start=start, best=best)


def samples_of(dataset: Dataset, rows: list[int], scored: ScoredBatch) -> list[dict[str, Any]]:
    """The sets of the first few validation queries, by name, for the run's page."""
    return [
        {
            "query": dataset.queries[row].text,
            "reward": float(scored.rewards[i]),
            "valid": fanout.valid,
            "subqueries": list(fanout.subqueries),
            "items": [dataset.item_names[item] for item in scored.items[i, :, 0] if item >= 0],
        }
        for i, (row, fanout) in enumerate(zip(rows[:KEPT], scored.fanouts, strict=False))
    ]


def judged(judge: LiveJudge, rows: list[int], scored: ScoredBatch, limit: int) -> dict[str, float]:
    """What an encoder that gives no reward says of the first `limit` sets; empty when none of them is valid."""
    read = [i for i, fanout in enumerate(scored.fanouts[:limit]) if fanout.valid]
    return judge.score([rows[i] for i in read], scored.items[read][:, :, 0]) if read else {}


def check_mismatch(config: Config, mismatch: float) -> None:
    """Stops a run whose engine does not sample from the learner's weights: training on it would be noise.

    An answer of an older version differs by the updates since, so each version of age allows as much again.
    """
    limit = config.rl.mismatch_limit * (1 + config.rl.staleness)
    if mismatch > limit:
        raise RuntimeError(
            f"rollout engine and learner disagree by {mismatch:.2f} nats per token (limit {limit:g}, from"
            " rl.mismatch_limit): the weights did not arrive whole, or the two use different precision"
        )
