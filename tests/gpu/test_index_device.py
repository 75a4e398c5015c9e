"""Exact search on a GPU: the same bits as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r4t.catalog.index import ExactIndex

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_gpu_finds_what_the_cpu_finds() -> None:
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((rows, 128)).astype(np.float32) for rows in (50_000, 1_000))
    vectors = np.concatenate([vectors, vectors[:5_000]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    on_cpu, on_gpu = ExactIndex(vectors), ExactIndex(vectors, torch.device("cuda", 0))
    for index in (on_cpu, on_gpu):
        index.add(queries[:10])
        index.remove(np.arange(0, 50_000, 7))
    for n in (1, 10, 200):
        for found, expected in zip(on_gpu.search(queries, n), on_cpu.search(queries, n), strict=True):
            np.testing.assert_array_equal(found, expected)
