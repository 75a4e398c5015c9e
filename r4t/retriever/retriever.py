"""`R4TRetriever`: query in, set of items out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from r4t.catalog.encoders import Encoder, unit_rows
from r4t.errors import UserError, did_you_mean
from r4t.retriever.engines import Engine, EngineName, OnnxEngine, TorchEngine
from r4t.retriever.files import ONNX, ONNX_INT8, Description, checked, read_description, read_items
from r4t.retriever.items import ItemIndex
from r4t.retriever.search import ItemSet, search_sets
from r4t.retriever.spread import spread_rows
from r4t.types import Floats

if TYPE_CHECKING:
    from r4t.config import Sampler

CHUNK = 256  # queries whose rows are drawn together
Queries = str | Sequence[str] | Floats
"""One text, several texts, or vectors [B, d] of the retriever's encoder."""
Seeds = int | Sequence[int]


class R4TRetriever:
    """A compiled retriever. Made by `from_pretrained`."""

    def __init__(
        self, folder: Path, description: Description, engine: Engine, items: ItemIndex | None, encoder_path: Path | None
    ) -> None:
        self.folder, self.description, self.items = folder, description, items
        self._engine, self._encoder_path = engine, encoder_path

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        engine: EngineName = "torch",
        items: ItemIndex | None = None,
        sampler: Sampler | None = None,
        encoder_path: str | Path | None = None,
        threads: int | None = None,
        dtype: str = "float32",
        compiled: bool = False,
        graphs: bool = False,
        device: str = "cpu",
    ) -> R4TRetriever:
        """Opens a folder that `r4t export` wrote.

        items: what to search instead of the folder's own items. sampler: another one than the stored (torch alone).
        encoder_path: the files of an encoder that does not ship in a package. threads: of ONNX Runtime; torch has
        `torch.set_num_threads`. dtype ("float32", "bfloat16"), compiled, graphs and device are torch's (`TorchEngine`).
        Raises UserError for a folder that is missing, damaged or of another encoder than `items`.
        """
        if engine not in (known := get_args(EngineName)):
            raise UserError(f"unknown engine '{engine}'{did_you_mean(engine, known)}: use one of {', '.join(known)}")
        folder = Path(folder)
        description = read_description(folder)
        running: Engine
        if engine == "torch":
            running = TorchEngine(folder, sampler, dtype=dtype, compiled=compiled, graphs=graphs, device=device)
        elif sampler is not None:
            raise UserError("an ONNX graph holds its sampler: export the retriever again with the one you want")
        else:
            graph = checked(folder, ONNX_INT8 if engine == "onnx-int8" else ONNX)
            running = OnnxEngine(graph, threads=threads, calls=description.calls)
        if items is not None:
            items.check(description.encoder["fingerprint"], description.dim)
        return cls(folder, description, running, items, Path(encoder_path) if encoder_path is not None else None)

    @property
    def encoder_hash(self) -> str:
        """Names the encoder of the shared space, its width and projection included. An index must be of the same."""
        return str(self.description.encoder["fingerprint"])

    @property
    def calls(self) -> int:
        """Network evaluations per set, guidance included."""
        return self._engine.calls

    def encode(self, texts: Sequence[str]) -> Floats:
        """Texts of queries or items -> unit vectors [n, d] of the shared space."""
        return self._encoder.encode(texts)

    def embed(self, queries: Queries, *, seed: Seeds = 0, spread: float = 1.0) -> Floats:
        """The unit rows [B, L, d] of one set per query, to be searched in any store of items of the same encoder.

        seed: another seed is another set; one for all queries, or one for each. A query's rows depend on the query,
        its seed and `spread` alone, not on what else is in the batch. spread: see docs/retriever.md; 1 is what the
        retriever was trained to draw, less is nearer to the query, more is more diverse.
        Raises UserError for empty texts, and for vectors of another width, not finite or zero.
        """
        vectors = self._vectors(queries)
        seeds = [int(seed)] * len(vectors) if isinstance(seed, int | np.integer) else [int(one) for one in seed]
        if len(seeds) != len(vectors):
            raise UserError(
                f"{len(vectors)} queries were given {len(seeds)} seeds: give one seed, or one for each query"
            )
        if min(seeds, default=0) < 0:
            raise UserError(f"seed {min(seeds)} is negative: seeds are 0, 1, 2, ...")
        rows = np.empty((len(vectors), self.description.rows, self.description.dim), dtype=np.float32)
        for start in range(0, len(vectors), CHUNK):
            part = slice(start, start + CHUNK)
            rows[part] = self._engine.rows(vectors[part], self._noise(seeds[part]))
        return spread_rows(rows, vectors, spread)

    def retrieve(
        self,
        queries: Queries,
        k: int | None = None,
        *,
        seed: Seeds = 0,
        spread: float = 1.0,
        items: ItemIndex | None = None,
    ) -> list[ItemSet]:
        """One set of k different items per query (None: as many as in the run's evaluation).

        items: searched instead of the retriever's own. seed and spread as in `embed`.
        Raises UserError as `embed` does, for an index of another encoder, and where there are no items.
        """
        k = self.description.k if k is None else k
        if k < 1:
            raise UserError(f"k is {k}: a set has at least one item")
        index = self._searched(items)
        return search_sets(index, self.embed(queries, seed=seed, spread=spread), k)

    @functools.cached_property
    def _encoder(self) -> Encoder:
        from r4t.retriever.encoder import open_encoder

        return open_encoder(self.folder, self.description, self._encoder_path)

    @functools.cached_property
    def _own_items(self) -> ItemIndex | None:
        stored = read_items(self.folder)
        if stored is None:
            return None
        item_ids, names, vectors = stored
        build = ItemIndex.exact if isinstance(self._engine, TorchEngine) else ItemIndex.of_vectors
        return build(vectors, self.encoder_hash, item_ids, names)

    def _searched(self, items: ItemIndex | None) -> ItemIndex:
        if items is not None:
            items.check(self.encoder_hash, self.description.dim)
            return items
        found = self.items or self._own_items
        if found is None:
            raise UserError(
                f"{self.folder} was exported without items: give `items`, or search your store with `embed`"
            )
        return found

    def _vectors(self, queries: Queries) -> Floats:
        if isinstance(queries, str):
            queries = [queries]
        if not isinstance(queries, np.ndarray):
            texts = list(queries)
            if not all(isinstance(text, str) and text.strip() for text in texts):
                raise UserError("a query is empty: give a few words, or vectors as one array [B, d]")
            return self.encode(texts)
        dim = self.description.dim
        if queries.ndim != 2 or queries.shape[1] != dim:
            raise UserError(
                f"query vectors have shape {queries.shape}, this retriever needs [B, {dim}]: encode the queries with"
                " `R4TRetriever.encode`, or with the encoder that retriever.json names"
            )
        return unit_rows(np.ascontiguousarray(queries, dtype=np.float32), what="the caller")

    def _noise(self, seeds: Sequence[int]) -> Floats:
        """[draws, B, L, d] standard normal noise, each query's from its own seed."""
        shape = (self._engine.draws, self.description.rows, self.description.dim)
        drawn = {
            seed: np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in dict.fromkeys(seeds)
        }
        return np.ascontiguousarray(np.stack([drawn[seed] for seed in seeds], axis=1))
