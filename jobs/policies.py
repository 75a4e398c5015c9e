"""The policies of a finished run behind one rollout worker, and every method that can be built from a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from r4t import methods as m
from r4t.catalog.dataset import Dataset
from r4t.catalog.encoders import Encoder
from r4t.catalog.index import ExactIndex, Index
from r4t.config import Config, Sampler
from r4t.diffusion.checkpoint import load_denoiser, load_sampler_settings
from r4t.diffusion.sampler import SetSampler
from r4t.errors import UserError, did_you_mean
from r4t.evaluation.evaluate import METHODS
from r4t.lineage import is_finished
from r4t.methods.build import UNTRAINED, build_untrained
from r4t.scoring import SetScorer
from r4t.types import Completion

POLICY_OF = {"zero_shot": "warm_start", "best_of_n": "warm_start", "r4t_folm": "policy"}
RETRIEVER_OF = {
    "r4t_diffusion": "retriever",
    "r4t_diffusion_reference": "retriever",
    "r4t_distilled": "distill",
    "zero_shot_diffusion": "retriever/zero_shot",
}
PRODUCTS = ("r4t_distilled", "r4t_diffusion")
REFERENCE = Sampler(name="euler_maruyama", steps=256, guidance=0.1, sigma_end=1e-3, rho=7.0)  # paper Table 3
CHUNK = 128  # queries per call to the engine

Engine = Callable[[Sequence[tuple[int, str]], int, float, int], list[Completion]]
"""(row and text of each query, samples, temperature, seed) -> completions, query-major."""
Swap = Callable[[Path, int], None]
"""Loads a safetensors file under a version number."""


class PolicySwitch:
    """One engine that answers as either policy of a run; weights move only when the other policy is asked.

    waited: seconds of all it was asked that went by until its engine ran.
    """

    def __init__(
        self,
        folm: Path,
        engine: Engine,
        swap: Swap,
        advance: Callable[[int], None] = lambda _: None,
        waited: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.folm, self.engine, self.swap, self.advance, self.waited = folm, engine, swap, advance, waited
        self.names = ("warm_start", "policy")  # a policy's place is its version
        self.loaded = 0

    def as_policy(self, name: str) -> m.Generate:
        """The `generate` callable of one policy, for the methods that write text."""

        def generate(queries: m.QueryBatch, samples: int, temperature: float, seed: int) -> list[list[str]]:
            self._load(self.names.index(name))
            asked = [(int(row), text) for row, text in zip(queries.rows, queries.texts, strict=True)]
            answers: list[list[str]] = []
            for start in range(0, len(asked), CHUNK):
                part = asked[start : start + CHUNK]
                answers += _grouped(self.engine(part, samples, temperature, seed), len(part), samples, self.loaded)
                self.advance(len(part) * samples)
            return answers

        return generate

    def _load(self, version: int) -> None:
        if version != self.loaded:
            self.swap(self.folm / self.names[version] / "model.safetensors", version)
            self.loaded = version


def product(run_folder: Path) -> str:
    """The method that a run was made for: its student's where it has one."""
    return next((name for name in PRODUCTS if is_finished(run_folder / RETRIEVER_OF[name])), PRODUCTS[-1])


def available_methods(run_folder: Path, config: Config) -> list[str]:
    """Methods whose artefacts the run has, in the order of the report."""
    return [name for name in METHODS if _missing(run_folder, name) is None and _wanted(name, config)]


def check_methods(names: Sequence[str], run_folder: Path) -> None:
    """Raises UserError for an unknown method or one whose stage has not run."""
    for name in names:
        if name not in METHODS:
            raise UserError(f"unknown method '{name}'{did_you_mean(name, METHODS)}: use {', '.join(METHODS)}")
        if missing := _missing(run_folder, name):
            raise UserError(
                f"method '{name}' needs {missing}: run the stage '{missing.relative_to(run_folder).parts[0]}'"
            )


def build_methods(
    names: Sequence[str],
    config: Config,
    run_folder: Path,
    dataset: Dataset,
    encoder: Encoder,
    policies: PolicySwitch | None = None,
    index: Index | None = None,
    n: int | None = None,
) -> dict[str, m.SetRetriever]:
    """The named methods over one database, all with the same k and n. Methods that write text need `policies`.

    `n` is `fanout.n` unless given; the reward by which best-of-N chooses looks at `fanout.n` items whatever it is.

    Without an index it searches exactly whatever the configuration says, so that a report never depends on what an
    index missed.
    """
    k, n = config.fanout.k, n or config.fanout.n
    index = index or ExactIndex(dataset.item_vectors)
    search = m.FanoutSearch(encoder, index, k, n)
    temperature = config.evaluate.temperature

    def build(name: str) -> m.SetRetriever:
        if name in UNTRAINED:
            return build_untrained(name, dataset, index, config.evaluate, k, n)
        if name in RETRIEVER_OF:
            folder = run_folder / RETRIEVER_OF[name]
            denoiser = load_denoiser(folder, dataset.item_vectors.shape[1])
            settings = REFERENCE if name == "r4t_diffusion_reference" else load_sampler_settings(folder)
            return m.Diffusion(name, SetSampler(denoiser, settings), index, k, n)
        if policies is None:
            raise ValueError(f"method '{name}' writes text and was given no policy")
        generate = policies.as_policy(POLICY_OF[name])
        if name == "best_of_n":
            scorer = SetScorer(dataset, encoder, config, index)
            return m.BestOfN(generate, search, scorer, temperature, config.evaluate.best_of)
        return m.LanguageFanout(name, generate, search, temperature)

    return {name: build(name) for name in names}


def _missing(run_folder: Path, name: str) -> Path | None:
    if name in POLICY_OF:
        needed = run_folder / "folm" / POLICY_OF[name] / "model.safetensors"
    elif name in RETRIEVER_OF:
        needed = run_folder / RETRIEVER_OF[name] / "model.safetensors"
    else:
        return None
    return None if needed.is_file() else needed


def _wanted(name: str, config: Config) -> bool:
    wanted = {
        "zero_shot_diffusion": config.evaluate.zero_shot_diffusion,
        "r4t_diffusion_reference": config.evaluate.diffusion_reference,
    }
    return wanted.get(name, True)


def _grouped(completions: Sequence[Completion], queries: int, samples: int, version: int) -> list[list[str]]:
    """Completions, query-major, as one list of answers per query."""
    if len(completions) != queries * samples or {c.policy_version for c in completions} - {version}:
        raise RuntimeError(
            f"asked policy version {version} for {queries} x {samples} answers, got {len(completions)} of versions"
            f" {sorted({c.policy_version for c in completions})}"
        )
    texts = [completion.text for completion in completions]
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]
