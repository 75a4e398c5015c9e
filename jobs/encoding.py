"""The vectors of a catalogue: from the cache, from this process, or, where there are many, from a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jobs.run import Run
from r4t.catalog.encoders import base_encoder
from r4t.catalog.encoders.cache import cache_key, read_cached, write_cached
from r4t.catalog.encoders.reduction import REDUCTION, ReducedEncoder, fit_projection, save_projection
from r4t.catalog.source import Catalog, Item
from r4t.catalog.vectors import cut_to
from r4t.config import Config
from r4t.errors import UserError
from r4t.lineage import file_hash
from r4t.types import Floats

BLOCK = 256  # texts or images encoded at a time: the grain of the progress bar and of the cluster's work


class Encoding:
    """A catalogue on its way into the shared space: first its items, then any texts.

    `encoder` is what made the vectors, its projection included once the items are encoded. `files` were written into
    the prepare folder. `computed` counts what was encoded now; other vectors came from the cache.
    """

    def __init__(self, config: Config, run: Run, folder: Path) -> None:
        self.config, self.run, self.folder = config, run, folder
        self.encoder = self._base = base_encoder(config.encoder)
        self._fingerprint = self._base.fingerprint()
        self.files: list[str] = []
        self.computed = 0

    def items(self, catalog: Catalog) -> Floats:
        """[N, d] unit rows: the items' own vectors, their images or their texts; fits the projection of `reduce: pca`.

        Raises UserError for an encoder that cannot be used, an image that cannot be read, a vector without direction.
        """
        vectors = full_item_vectors(self.config, catalog, self._base.dim, self._vectors)
        if self.config.encoder.reduce != "pca":
            return vectors
        projection = fit_projection(vectors, self.config.encoder.dim)
        save_projection(self.folder, projection)
        self.files.append(REDUCTION)
        self.encoder = reduced = ReducedEncoder(self._base, projection)
        return reduced.project(vectors)

    def texts(self, what: str, texts: list[str]) -> Floats:
        """[n, d] unit rows, in the space of the items."""
        vectors = self._vectors(what, texts)
        return self.encoder.project(vectors) if isinstance(self.encoder, ReducedEncoder) else vectors

    def _vectors(self, what: str, contents: list[str], images: bool = False) -> Floats:
        """[n, dim] unit rows of n texts or image paths."""
        hashed = (file_hash(Path(path)) for path in contents) if images else contents
        key = cache_key(self._fingerprint, hashed, kind="image" if images else "text")
        cached = read_cached(key, len(contents), self._base.dim)
        if cached is not None:
            return cached
        self.computed += len(contents)
        vectors = self._encode(what, contents, images)
        if (problem := write_cached(key, vectors)) is not None:
            self.run.say(f"encode {what}: not kept in the cache ({problem}); set R4T_CACHE to a folder with room")
        return vectors

    def _encode(self, what: str, contents: list[str], images: bool) -> Floats:
        shape = (len(contents), self._base.dim)
        with self.run.progress(f"encode {what}", len(contents)) as bar:
            if len(contents) > self.config.encoder.distribute_above:
                from cluster.encoding import encode_on_ray, ray_is_up  # Ray takes a second to import

                if ray_is_up():
                    return encode_on_ray(
                        self.config,
                        contents,
                        images=images,
                        block=BLOCK,
                        shape=shape,
                        fingerprint=self._fingerprint,
                        advance=bar.advance,
                        say=self.run.say,
                    )
            vectors = np.empty(shape, dtype=np.float32)
            for start in range(0, len(contents), BLOCK):
                block = contents[start : start + BLOCK]
                encoded = self._base.encode_images(list(map(Path, block))) if images else self._base.encode(block)
                vectors[start : start + len(block)] = encoded
                bar.advance(len(block))
            return vectors


def full_item_vectors(
    config: Config, catalog: Catalog, width: int, encode: Callable[[str, list[str], bool], Floats]
) -> Floats:
    """[N, width] the items before a projection: their own vectors, or what `encode` (what it is, contents, whether
    these are image paths) makes of their images or texts."""
    column = config.encoder.image_column
    if catalog.item_vectors is not None:
        return cut_to(catalog.item_vectors, width)
    if column is not None:
        return encode("images", image_paths(config, catalog.items, column), True)
    return encode("items", [item.text for item in catalog.items], False)


def image_paths(config: Config, items: Sequence[Item], column: str) -> list[str]:
    """The image file of every item, from `column`; relative paths start at the folder of the items file.

    Raises UserError for a column that is not there, an item without a path, a file that is not there.
    """
    root = config.data.items.parent if config.data.items is not None else Path()
    paths = []
    for item in items:
        value = item.extra.get(column)
        if not isinstance(value, str) or not value.strip():
            raise UserError(
                f"item {item.item_id} has no path in column '{column}' (encoder.image_column) of {config.data.items}:"
                " fill it in, remove the item, or name another column"
            )
        path = root / value
        if not path.is_file():
            raise UserError(f"item {item.item_id}: no image at {path}: fix column '{column}' (encoder.image_column)")
        paths.append(str(path.resolve()))
    return paths
