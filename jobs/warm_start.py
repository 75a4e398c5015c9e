"""The supervised warm start of stage 1: the policy learns the answer format and ten sub-queries."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.launch import gather
from cluster.learner import Phase
from jobs.run import Run
from r4t.batch import TokenBatch, supervised_batch
from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import word_encoder
from r4t.config import Config
from r4t.errors import UserError
from r4t.fanout import build_prompt, format_answer
from r4t.lineage import write_json
from r4t.policy import check_policy, create_policy, encode_prompt, load_tokenizer, token_vectors, train_tokenizer
from r4t.sealed import damage, sealed_folder
from r4t.warmstart import teach

CHUNK = 50  # steps between progress reports
VALIDATION = "validation.json"


def is_whole(folder: Path, say: Callable[[str], None]) -> bool:
    """Whether a policy stands there, as it was written. One that is damaged is told of."""
    if problem := damage(folder):
        say(f"{folder} is damaged ({problem}): making it again")
    return not problem and (folder / "config.json").is_file()


def initial_policy(
    config: Config,
    dataset: Dataset,
    lessons: list[list[list[str]]],
    prepare: Path,
    folder: Path,
    say: Callable[[str], None],
) -> Path:
    """The directory the policy starts from: the user's, or a small fresh one made in `folder`.

    `prepare` is the folder that `dataset` was read from.
    """
    if config.policy.model is not None:
        check_policy(config.policy.model)
        return config.policy.model
    if not is_whole(folder, say):
        answers = [subquery for fanouts in lessons for fanout in fanouts for subquery in fanout]
        texts = [query.text for query in dataset.queries] + answers
        tokenizer = train_tokenizer(texts, config.policy.vocab_size, config.policy.fold_words)
        words = None
        if config.policy.embeddings == "encoder":
            encoder = word_encoder(config, prepare)
            words = token_vectors(tokenizer, encoder, config.policy.hidden, config.seed)
        with sealed_folder(folder) as temporary:
            create_policy(temporary, tokenizer, config.policy, config.seed, words)
    return folder


def lessons_for(config: Config, dataset: Dataset) -> list[list[list[str]]]:
    """The teacher's fan-outs for every training query."""
    return teach(dataset, dataset.split("train").tolist(), config.fanout.k, config.warm_start, config.seed)


def corpus(config: Config, dataset: Dataset, lessons: list[list[list[str]]], model_dir: Path) -> TokenBatch:
    """Prompts of the training queries with the teacher's answers, as tokens."""
    tokenizer = load_tokenizer(model_dir)
    fanout = config.fanout
    prompts, answers = [], []
    for row, fanouts in zip(dataset.split("train").tolist(), lessons, strict=True):
        text = dataset.queries[row].text
        prompt = build_prompt(text, style=fanout.prompt, task=config.task, domain=fanout.domain, k=fanout.k)
        ids = encode_prompt(tokenizer, prompt)
        for subqueries in fanouts:
            answer = [*tokenizer.encode(format_answer(subqueries), add_special_tokens=False), tokenizer.eos_token_id]
            if len(ids) + len(answer) <= config.policy.max_length:
                prompts.append(ids)
                answers.append(answer)
    if not prompts:
        raise UserError(
            f"no warm-start answer fits policy.max_length = {config.policy.max_length}: raise it or lower fanout.k"
        )
    return supervised_batch(prompts, answers, tokenizer.pad_token_id)


def warm_start(config: Config, run: Run, learners: list[Any], lessons: TokenBatch, model_dir: Path, out: Path) -> None:
    """Trains the policy in `model_dir` on the teacher's answers and saves it to `out` (Hugging Face format)."""
    import ray

    settings = config.warm_start
    phase = Phase(lr=settings.lr, betas=(0.9, 0.99))
    gather([learner.begin.remote(model_dir, phase) for learner in learners], config, "learner ranks")
    shared = ray.put(lessons)
    with run.progress("warm start", settings.steps) as bar:
        for start in range(0, settings.steps, CHUNK):
            stop = min(start + CHUNK, settings.steps)
            lrs = [settings.lr * cosine(step, settings.steps) for step in range(start, stop)]
            losses = gather(
                [learner.supervise.remote(shared, start, stop, lrs) for learner in learners], config, "learner ranks"
            )
            run.log("warm_start", stop, {"loss": sum(losses) / len(losses), "lr": lrs[-1]})
            bar.advance(stop - start)
    save_policy(config, learners, model_dir, out)


def save_policy(
    config: Config, learners: list[Any], model_dir: Path, out: Path, validation: dict[str, float] | None = None
) -> None:
    """Writes the learners' weights beside the configuration and tokenizer of `model_dir`, atomically.

    With `validation`, also what this policy scored, as `validation.json`.
    """
    with sealed_folder(out) as temporary:
        copy_policy_files(model_dir, temporary)
        if validation is not None:
            write_json(temporary / VALIDATION, validation)
        gather(
            [learner.export.remote(temporary / "model.safetensors") for learner in learners], config, "learner ranks"
        )


def copy_policy_files(source: Path, target: Path) -> None:
    """Everything of a model directory but its weights."""
    for path in source.iterdir():
        if path.is_file() and path.suffix in {".json", ".jinja", ".txt", ".model"} and "index" not in path.name:
            shutil.copy2(path, target / path.name)


def cosine(step: int, steps: int, warmup: int = 20) -> float:
    """Factor of the learning rate: linear over the first steps, then a cosine down to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
