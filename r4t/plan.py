"""What a run will take before it is paid for: time, memory, storage and the bottleneck of every stage.

Each stage is its work divided by the rate of the actors that do it (`r4t.rates`). What is assumed beyond that is in
`ASSUMPTIONS`, which every output repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from r4t.config import Config
from r4t.errors import UserError
from r4t.footprint import Footprint, Kind, PolicyShape, gpu_loads
from r4t.placement import Machine, changes
from r4t.rates import Rates
from r4t.schedule import Loop, Simulated, simulate
from r4t.seats import bundles, gpus_held, seats
from r4t.seats import total as total_amounts

GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SIMULATED_STEPS, SPREAD = 40, 0.3
DISTILLING = 1.6  # times what a retriever's training takes for as many sets: a student draws two for each
LEAST = 0.1  # share of the measured time that even a tiny model takes
ASSUMPTIONS = (
    "actors of a kind share their work evenly and as many work as fast as one, until each has a single sequence",
    "a policy or retriever of another size takes time in proportion to its parameters, but never less than a tenth of"
    " the one that was measured; answers keep their length",
    "gradient exchange between learner ranks, queueing and pods that start are not counted",
    "with rl.staleness 1 or more, sampling and learning overlap completely",
    f"the simulated step lets groups differ in length (log-normal, spread {SPREAD:g}) and wait for one another as in"
    " the loop; it is a simulation, not a measurement",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is worked on."""

    items: int
    queries: int
    """All splits; eight of ten train."""
    policy: PolicyShape
    retriever_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage's prediction. `parts` are seconds by what they are spent on, `bottleneck` the largest of them."""

    seconds: float
    storage: float
    """Bytes that it leaves."""
    parts: dict[str, float]

    @property
    def bottleneck(self) -> str:
        return max(self.parts, key=self.parts.__getitem__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How many GPUs write answers, how many learn; `colocate`: the same ones do both, in turn."""

    workers: int
    ranks: int
    colocate: bool

    @property
    def gpus(self) -> int:
        return self.ranks if self.colocate else self.workers + self.ranks


def stages(config: Config, rates: Rates, size: Size) -> dict[str, Stage]:
    """Predictions for the configuration as it is, by stage."""
    return {
        "prepare": _prepare(config, rates, size),
        "folm": _folm(config, rates, size),
        "sets": _sets(config, rates, size),
        "retriever": _retriever(config, rates, size),
        **({"distill": _distill(config, rates, size)} if config.distill.enabled else {}),
        "evaluate": _evaluate(config, rates, size),
    }


def step_parts(config: Config, rates: Rates, size: Size) -> dict[str, float]:
    """Seconds of each activity of one training step, if none overlapped."""
    answers = config.rl.queries_per_step * config.rl.group_size
    slower = _slower(size.policy.parameters, rates.parameters)
    tokens = answers * rates.answer_tokens
    return {
        "sampling": slower * tokens / (rates.generate * min(config.rollout.workers, answers)),
        "scoring": answers / (rates.score * config.scorer.workers),
        "learning": slower * tokens / (rates.train * min(config.learner.ranks, answers // config.rl.updates_per_batch)),
        "weights": slower * rates.sync,
        "overhead": rates.overhead,
    }


def step_seconds(config: Config, parts: Mapping[str, float]) -> float:
    """One step: everything in turn, or, with staleness and GPUs of their own, the longer of sampling and learning."""
    ahead = parts["sampling"] + parts["scoring"]
    if config.rl.staleness and not config.rollout.colocate:
        return max(ahead, parts["learning"]) + parts["weights"] + parts["overhead"]
    return sum(parts.values())


def simulated_step(config: Config, parts: Mapping[str, float]) -> Simulated:
    """SIMULATION of the loop's schedule (`r4t.schedule`) with the parts of a step: adds what waiting for the slowest
    group costs, which `step_seconds` leaves out. Scoring counts as part of a group's sampling."""
    rl, workers = config.rl, config.rollout.workers
    overlap = rl.staleness if not config.rollout.colocate else 0
    loop = Loop(
        groups=rl.queries_per_step,
        group=(parts["sampling"] + parts["scoring"]) * min(workers, rl.queries_per_step) / rl.queries_per_step,
        train=parts["learning"],
        sync=parts["weights"] + parts["overhead"],
    )
    return simulate(loop, min(workers, rl.queries_per_step), overlap, SIMULATED_STEPS, SPREAD)


def best_split(config: Config, rates: Rates, size: Size, gpus: int, gpu_gib: float) -> Config | None:
    """The configuration with `gpus` GPUs dealt to rollout workers and learner ranks so that a step is shortest.

    None where no split fits into GPUs of `gpu_gib` GiB.
    """
    pair = Split(workers=1, ranks=1, colocate=False)
    left = gpus - (gpus_held(with_split(config, pair)) - pair.gpus)  # scorers and shards may hold GPUs of their own
    if left < 1:
        return None
    found = [with_split(config, Split(workers=left, ranks=left, colocate=True))]
    found += [with_split(config, Split(workers=left - n, ranks=n, colocate=False)) for n in _ranks(left)]
    sequences = config.rl.queries_per_step * config.rl.group_size
    fits = [
        one
        for one in found
        if one.learner.ranks * one.rl.updates_per_batch <= sequences
        and max(gpu_loads(one, size.policy, size.items).values()) <= gpu_gib
    ]
    return min(fits, key=lambda one: step_seconds(one, step_parts(one, rates, size)), default=None)


def with_split(config: Config, split: Split) -> Config:
    """The configuration with other numbers of actors; nothing else changes, but colocated actors share a pool."""
    pool = config.learner.pool if split.colocate else config.rollout.pool
    rollout = config.rollout.model_copy(update={"workers": split.workers, "colocate": split.colocate, "pool": pool})
    learner = config.learner.model_copy(update={"ranks": split.ranks})
    ranks = _divisor(config.retriever.batch, split.gpus)
    retriever = config.retriever.model_copy(update={"ranks": ranks})
    return config.model_copy(update={"rollout": rollout, "learner": learner, "retriever": retriever})


def check_fit(
    config: Config,
    size: Size,
    memory: Mapping[Kind, Footprint],
    *,
    gpus: int | None,
    gpu_gib: float,
    memory_gib: float | None,
) -> None:
    """Raises UserError, with the smallest changes that help, for a configuration that the machines cannot hold."""
    needed = gpus_held(config)
    if config.cluster.device == "cpu":
        total = sum(memory[kind].host * count for kind, count in counts(config).items()) + memory["driver"].host
        if memory_gib is not None and total > memory_gib:
            raise UserError(
                f"the run needs about {total:.1f} GiB and {memory_gib:g} are given: lower rollout.kv_cache_gib,"
                " learner.micro_tokens or the number of actors, or raise learner.zero_stage"
            )
        return
    if gpus is not None and needed > gpus:
        raise UserError(
            f"rollout.workers {config.rollout.workers}, learner.ranks {config.learner.ranks} and scorer.gpus"
            f" {config.scorer.gpus:g} need {needed} GPUs and {gpus} are given; the smallest changes that fit:"
            f" {' | '.join(_fewer_gpus(config, gpus))}"
        )
    for who, gib in gpu_loads(config, size.policy, size.items).items():
        if gib > gpu_gib:
            raise UserError(
                f"a {who} needs about {gib:.0f} GiB of GPU memory and a GPU has {gpu_gib:g}: {_remedy(config, who)}"
            )


def _fewer_gpus(config: Config, gpus: int) -> list[str]:
    """As of one node with these GPUs and any number of CPUs."""
    cpus = total_amounts(bundles(seats(config)))["CPU"]
    found = changes(config, [Machine(resources={"CPU": cpus, "GPU": float(gpus)})])
    both = [] if config.rollout.colocate else ["rollout.colocate=true with equal numbers"]
    return [*found[:-1], *both, "more GPUs"]


def counts(config: Config) -> dict[Kind, int]:
    """Actors of stage folm by role."""
    shards = config.index.shards if config.index.shards > 1 else 0
    return {
        "rollout": config.rollout.workers,
        "learner": config.learner.ranks,
        "scorer": config.scorer.workers,
        "shard": shards,
    }


def _remedy(config: Config, who: str) -> str:
    learner = config.learner
    steps = []
    if "learner" in who:
        steps += [f"learner.zero_stage=3 (now {learner.zero_stage})"] if learner.zero_stage < 3 else []
        steps += ["learner.dtype=bfloat16"] if learner.dtype == "float32" else []
        steps += [] if learner.gradient_checkpointing else ["learner.gradient_checkpointing=true"]
        steps += [f"a smaller learner.micro_tokens (now {learner.micro_tokens})", "more learner.ranks"]
    if "scorers" in who or "shards" in who:
        steps += [f"a larger scorer.gpus (now {config.scorer.gpus:g}), or 0 to search on the CPU", "more index.shards"]
    if "rollout" in who:
        steps += ["rollout.dtype=bfloat16"] if config.rollout.dtype == "float32" else []
        steps += [f"a smaller rollout.kv_cache_gib (now {config.rollout.kv_cache_gib:g})"]
    return "try " + ", ".join(steps)


def _prepare(config: Config, rates: Rates, size: Size) -> Stage:
    texts = size.items + size.queries
    storage = texts * config.encoder.dim * 4 + size.items * 1024
    return Stage(seconds=texts / rates.encode, storage=storage, parts={"encoding": texts / rates.encode})


def _folm(config: Config, rates: Rates, size: Size) -> Stage:
    rl, slower = config.rl, _slower(size.policy.parameters, rates.parameters)
    warm = slower * config.warm_start.steps * config.warm_start.batch / (rates.warm * config.learner.ranks)
    parts = step_parts(config, rates, size)
    step = step_seconds(config, parts)
    held_out = min(rl.validate_queries, size.queries // 10)
    one = slower * held_out * rates.answer_tokens / (rates.generate * min(config.rollout.workers, held_out))
    validating = (1 + rl.steps // rl.validate_every) * (one + held_out / (rates.score * config.scorer.workers))
    stored = size.policy.parameters * (3 * 4 + rl.keep_last * 12)  # initial, warm start and policy; checkpoints
    shares = {name: rl.steps * seconds for name, seconds in parts.items()}
    return Stage(
        seconds=rates.start + warm + rl.steps * step + validating,
        storage=stored,
        parts={"start": rates.start, "warm start": warm, "validating": validating} | shares,
    )


def _sets(config: Config, rates: Rates, size: Size) -> Stage:
    policies = 1 + config.evaluate.zero_shot_diffusion
    answers = policies * 0.8 * size.queries * config.sets.samples_per_query
    slower = _slower(size.policy.parameters, rates.parameters)
    shards = max(1, policies * -(-int(0.8 * size.queries) // config.sets.shard_queries))
    seconds = slower * answers / (rates.synthesise * min(config.rollout.workers, shards))
    parts = {"start": rates.sets_start, "sampling and scoring": seconds}
    return Stage(seconds=sum(parts.values()), storage=answers * rates.answer_bytes, parts=parts)


def _retriever(config: Config, rates: Rates, size: Size) -> Stage:
    """The compared retriever trains at the same time where there is room; the rate was measured in the same way."""
    retriever, slower = config.retriever, _slower(size.retriever_parameters, rates.retriever_parameters)
    seconds = slower * retriever.steps * retriever.batch / (rates.denoise * retriever.ranks)
    if config.cluster.device != "cpu" and config.evaluate.zero_shot_diffusion:
        seconds *= 1 if 2 * retriever.ranks <= gpus_held(config) else 2
    copies = 1 + config.evaluate.zero_shot_diffusion
    parts = {"start": rates.retriever_start, "denoiser training": seconds}
    return Stage(seconds=sum(parts.values()), storage=copies * 4 * size.retriever_parameters, parts=parts)


def _distill(config: Config, rates: Rates, size: Size) -> Stage:
    student, slower = config.distill, _slower(size.retriever_parameters, rates.retriever_parameters)
    rate = rates.distill or rates.denoise / DISTILLING
    start = rates.distill_start if rates.distill else rates.retriever_start
    parts = {"start": start, "student training": slower * student.steps * student.batch / (rate * student.ranks)}
    return Stage(seconds=sum(parts.values()), storage=4 * size.retriever_parameters, parts=parts)


def _evaluate(config: Config, rates: Rates, size: Size) -> Stage:
    asked = min(config.evaluate.queries, size.queries // 10) * len(config.evaluate.seeds)
    seconds = asked / rates.evaluate * max(1.0, size.policy.parameters / rates.parameters)
    parts = {"start and latencies": rates.evaluate_start, "answering and measuring": seconds}
    return Stage(seconds=sum(parts.values()), storage=asked * 10 * 1024, parts=parts)


def _slower(parameters: float, measured: float) -> float:
    return max(LEAST, parameters / measured)


def _ranks(gpus: int) -> list[int]:
    """Numbers of learner ranks to try for so many GPUs."""
    shares = {round(gpus * share / 16) for share in range(1, 16)}
    return sorted((shares | {2**n for n in range(10)}) & set(range(1, gpus)))


def _divisor(batch: int, at_most: int) -> int:
    return next(n for n in range(min(batch, at_most), 0, -1) if batch % n == 0)


def total(found: Mapping[str, Stage]) -> Stage:
    """All stages, one after the other."""
    return Stage(
        seconds=sum(stage.seconds for stage in found.values()),
        storage=sum(stage.storage for stage in found.values()),
        parts={name: stage.seconds for name, stage in found.items()},
    )
