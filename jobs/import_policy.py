"""`r4t import-policy`: what another trainer wrote becomes the policy of a run, with its lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import AutoConfig

from jobs.pipeline import locked
from jobs.warm_start import copy_policy_files
from r4t.config import Config, load_config
from r4t.errors import UserError
from r4t.lineage import file_hash, is_finished, write_manifest
from r4t.policy import check_policy, load_tokenizer
from r4t.sealed import sealed_folder

WEIGHTS = "model.safetensors"
HEAD = "lm_head.weight"


def main(run: Path, trained: Path, start: Path | None, trainer: str) -> None:
    """Finishes the run's stage folm with the policy in `trained`.

    Raises UserError when the stage has finished already, or when the policy is no continuation of `start` (by default
    the run's warm-started policy, else the configuration's model).
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run directory (it has no config.yaml): give the folder that `r4t run` made")
    config, folder = load_config(run / "config.yaml"), run / "folm"
    with locked(run):
        if is_finished(folder):
            raise UserError(f"{folder} holds a trained policy already: give this one a run of its own (--run-dir)")
        if not is_finished(run / "prepare"):
            raise UserError(f"{run} has no finished dataset: run `r4t run CONFIG --stage prepare` first")
        warm_started = folder / "warm_start"
        if start is not None or not (warm_started / WEIGHTS).is_file():
            begin = start or config.policy.model
            if begin is None:
                raise UserError(
                    f"{run} does not hold the policy that training began with, to which the trained one is compared:"
                    " give it with --start DIR"
                )
            adopt(begin, warm_started)
        finish(config, run, trained, trainer)
    print(f"{folder}: finished; `r4t run` goes on with the stage sets")


def finish(config: Config, run: Path, trained: Path, trainer: str, metrics: dict[str, Any] | None = None) -> None:
    """Adopts the trained policy beside `folm/warm_start` and closes the stage. Raises UserError as `main` does."""
    folder = run / "folm"
    check_policy(trained)
    check_same_kind(trained, folder / "warm_start")
    sources = {path.name: file_hash(path) for path in sorted(trained.glob("*.safetensors"))}
    adopt(trained, folder / "policy")
    check_same_shapes(folder / "policy" / WEIGHTS, folder / "warm_start" / WEIGHTS)
    write_manifest(
        folder,
        stage="folm",
        config=config.model_dump(mode="json"),
        inputs={"prepare": run / "prepare"},
        files=[
            f"{name}/{file.name}" for name in ("warm_start", "policy") for file in sorted((folder / name).iterdir())
        ],
        metrics={"step": float(config.rl.steps)} | (metrics or {}),
        extra={"imported": {"trainer": trainer, "folder": str(trained.resolve()), "files": sources}},
    )


def adopt(source: Path, target: Path) -> None:
    """Copies a Hugging Face directory as the stages read it: one safetensors file, no code. Raises UserError for one
    that holds adapters or damaged weights."""
    check_policy(source)
    if (source / "adapter_config.json").is_file():
        raise UserError(f"{source} holds adapters, not a whole model: merge them into it first")
    with sealed_folder(target) as temporary:
        copy_policy_files(source, temporary)
        save_file(_tensors(source), temporary / WEIGHTS, metadata={"format": "pt"})


def check_same_kind(trained: Path, start: Path) -> None:
    """Raises UserError unless both have one architecture and one vocabulary: an engine swaps weights between them."""
    there, here = _kind(trained), _kind(start)
    differing = [f"{key} {there[key]} there, {here[key]} here" for key in there if there[key] != here[key]]
    if differing:
        raise UserError(
            f"{trained} is not a continuation of {start}: {', '.join(differing)}. Give the policy that its training"
            " began with as --start DIR"
        )
    if load_tokenizer(trained).get_vocab() != load_tokenizer(start).get_vocab():
        raise UserError(f"{trained} and {start} read text with different vocabularies: give the right --start DIR")


def check_same_shapes(trained: Path, start: Path) -> None:
    """Raises UserError unless both files hold the same tensors, of the same shapes. A tied head may be left out."""
    shapes = [_shapes(path) for path in (trained, start)]
    for own in shapes:
        own.pop(HEAD, None)
    if shapes[0] != shapes[1]:
        name = sorted(name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name))[0]
        raise UserError(
            f"the weights in {trained.parent} are not those of {start.parent}'s model: {name} is"
            f" {shapes[0].get(name, 'absent')}, not {shapes[1].get(name, 'absent')}"
        )


def _kind(folder: Path) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    names = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size", "tie_word_embeddings")
    return {name: getattr(config, name, None) for name in names}


def _shapes(path: Path) -> dict[str, list[int]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  no mapping


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}): copy it again") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{folder} holds NaN or infinite weights ({name}): training diverged")
    return tensors
