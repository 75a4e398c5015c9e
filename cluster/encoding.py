"""Encodes a large catalogue on every core of a Ray cluster: blocks of it go to actors that each hold the encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, DataContext

from cluster.data_job import ending_its_schedule, timely
from cluster.devices import role_environment
from cluster.presence import roll_call, sign
from r4t.catalog.encoders import Encoder, base_encoder
from r4t.config import Config
from r4t.errors import UserError
from r4t.types import Floats

Batch = dict[str, NDArray[Any]]
BLOCKS_PER_TASK = 4


class BlockEncoder:
    """One encoder. A batch is one block: the same texts at once as on a single machine, and so the same vectors.

    A user's mistake travels as a value, `problem`: Ray Data would bury an exception under its own.
    """

    def __init__(self, config: Config, fingerprint: str, images: bool, roll: Any) -> None:
        sign(roll, "an encoder")
        self.config, self.fingerprint, self.images = config, fingerprint, images
        self.encoder: Encoder | None = None

    def __call__(self, batch: Batch) -> Batch:
        vectors, problem = b"", ""
        try:
            vectors = self._encode([str(content) for content in batch["contents"][0]]).tobytes()
        except UserError as error:
            problem = str(error)
        return {
            "start": batch["start"],
            "vectors": np.array([vectors], dtype=object),
            "problem": np.array([problem], dtype=object),
        }

    def _encode(self, block: list[str]) -> Floats:
        if self.encoder is None:
            self.encoder = self._checked()
        return self.encoder.encode_images(list(map(Path, block))) if self.images else self.encoder.encode(block)

    def _checked(self) -> Encoder:
        encoder = base_encoder(self.config.encoder)
        if encoder.fingerprint() != self.fingerprint:
            raise UserError(
                f"node {ray.util.get_node_ip_address()} has another encoder than the driver: put the same files at"
                " encoder.path, and the same packages, on every node"
            )
        return encoder


def ray_is_up() -> bool:
    """Whether this process is connected to a Ray cluster."""
    return ray.is_initialized()


def encode_on_ray(
    config: Config,
    contents: Sequence[str],
    *,
    images: bool,
    block: int,
    shape: tuple[int, int],
    fingerprint: str,
    advance: Callable[[int], None],
    say: Callable[[str], None],
) -> Floats:
    """[n, dim] unit rows of n texts, or of n image paths that every node can read; `shape` is (n, dim).

    As many actors as the cluster has free CPUs. `advance` is told the size of every block that is done, `say` of
    encoders that stand still and are replaced.
    Raises UserError when a node's encoder has another `fingerprint`, or for what the encoder itself refuses.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"start": i, "contents": list(contents[i : i + block])} for i in range(0, len(contents), block)]
    workers = max(1, min(len(rows), int(ray.available_resources().get("CPU", 1))))
    vectors = np.empty(shape, dtype=np.float32)
    with roll_call(config, say) as roll, ending_its_schedule():
        encoded = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // BLOCKS_PER_TASK)).map_batches(
            cast(Any, BlockEncoder),
            fn_constructor_args=(config, fingerprint, images, roll),
            batch_size=1,
            batch_format="numpy",
            compute=ActorPoolStrategy(size=workers),
            num_cpus=1,
            runtime_env={"env_vars": role_environment("scorer", config) | {"OMP_NUM_THREADS": "1"}},
        )
        for done in timely(encoded.iter_rows(), config.cluster.call_timeout):
            if done["problem"]:
                raise UserError(done["problem"])
            part = np.frombuffer(done["vectors"], dtype=np.float32).reshape(-1, shape[1])
            vectors[done["start"] : done["start"] + len(part)] = part
            advance(len(part))
    return vectors
