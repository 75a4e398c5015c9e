"""The whole sampler as one ONNX graph: query vectors and noise in, rows out, every solver step unrolled.

    queries [B, d], noise [draws, B, L, d]  ->  rows [B, L, d]

The graph holds the solver, the grid and the guidance that it was exported with; its weights are stored once.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from r4t.diffusion.sampler import SetSampler
from r4t.errors import UserError
from r4t.lineage import atomic_path
from r4t.types import Floats

OPSET = 18
PARITY = 1e-4
"""Largest difference of a coordinate of unit rows that an exported graph may show against torch."""
MOST_CALLS = 64
PACKAGES = {"onnx": "onnx==1.23.2", "onnxruntime": "onnxruntime==1.32.0"}


class _Rows(nn.Module):
    def __init__(self, sampler: SetSampler) -> None:
        super().__init__()
        self.network, self._sampler = sampler.network, sampler

    def forward(self, queries: Tensor, noise: Tensor) -> Tensor:
        return self._sampler.solve(queries, noise)


def export_onnx(sampler: SetSampler, path: Path) -> float:
    """Writes the graph, atomically, and returns its largest difference from torch on random queries.

    Raises UserError where packages are missing, for a sampler of more than 64 calls, and for a graph that differs by
    more than `PARITY`; nothing is left in that case.
    """
    check_packages()
    if sampler.nfe > MOST_CALLS:
        raise UserError(
            f"the sampler makes {sampler.nfe} network calls and the graph would hold each: export one of at most"
            f" {MOST_CALLS}, with fewer retriever.sampler.steps"
        )
    config = sampler.denoiser.config
    queries, noise = _example(sampler, batch=3)
    with atomic_path(path) as temporary:
        with torch.no_grad(), warnings.catch_warnings():
            # Tracing warns that the grid becomes constants, which is the point. The newer exporter cannot do that.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Rows(sampler).eval(),
                (queries, noise),
                str(temporary),
                input_names=["queries", "noise"],
                output_names=["rows"],
                dynamic_axes={"queries": {0: "batch"}, "noise": {1: "batch"}, "rows": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        difference = _difference(sampler, temporary)
        if not difference <= PARITY:
            raise UserError(
                f"the exported graph differs from torch by {difference:.1e} (at most {PARITY:.0e} is allowed) for"
                f" {config.rows} rows of width {config.dim}: serve with torch, and report this"
            )
    return difference


def quantise(graph: Path, path: Path) -> tuple[float, float]:
    """Writes `graph` with its weights in 8 bits, activations quantised as they come.

    Returns the mean and the least cosine of its rows with those of `graph`, on 64 random queries.
    """
    check_packages()
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with atomic_path(path) as temporary:
        # Without this step all calls but one reach the shared weights through identities, and stay as they are.
        quant_pre_process(str(graph), str(temporary), skip_symbolic_shape=True)
        # 7 of the 8 bits: processors without VNNI add two products in 16 bits, which whole ones would overflow.
        options = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": True}
        quantize_dynamic(str(temporary), str(temporary), **options)
    exact, short = (_session(file) for file in (graph, path))
    draws, _, rows, dim = exact.get_inputs()[1].shape
    rng = np.random.default_rng(0)
    queries = _unit(rng.standard_normal((64, dim), dtype=np.float32))
    noise = rng.standard_normal((draws, 64, rows, dim), dtype=np.float32)
    one, two = (_unit(s.run(None, {"queries": queries, "noise": noise})[0]) for s in (exact, short))
    cosine = (one * two).sum(axis=-1)
    return float(cosine.mean()), float(cosine.min())


def check_packages() -> None:
    """Raises UserError that names what an export needs and is not installed."""
    missing = [pinned for name, pinned in PACKAGES.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"exporting to ONNX needs packages that are not installed: pip install {' '.join(missing)}")


def _difference(sampler: SetSampler, path: Path) -> float:
    """Between unit rows of torch and of the graph, for batches of another size than the traced one."""
    session, worst = _session(path), 0.0
    for batch in (1, 5):
        queries, noise = _example(sampler, batch)
        with torch.inference_mode():
            expected = sampler.solve(queries, noise).numpy()
        found = session.run(None, {"queries": queries.numpy(), "noise": noise.numpy()})[0]
        worst = max(worst, float(np.abs(_unit(found) - _unit(expected)).max()))
    return worst


def _example(sampler: SetSampler, batch: int) -> tuple[Tensor, Tensor]:
    config, generator = sampler.denoiser.config, torch.Generator().manual_seed(batch)
    queries = torch.nn.functional.normalize(torch.randn(batch, config.dim, generator=generator), dim=-1)
    return queries, torch.randn(sampler.draws, batch, config.rows, config.dim, generator=generator)


def _session(path: Path):  # type: ignore[no-untyped-def]  # onnxruntime has no types
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _unit(rows: Floats) -> Floats:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
