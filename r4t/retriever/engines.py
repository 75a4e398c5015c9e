"""What computes the rows: torch, or ONNX Runtime where torch is not installed."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from r4t.errors import UserError
from r4t.retriever.files import checked
from r4t.types import Floats

if TYPE_CHECKING:
    from r4t.config import Sampler

EngineName = Literal["torch", "onnx", "onnx-int8"]


class Engine(Protocol):
    draws: int
    """Noise tensors [B, L, d] that a set takes."""
    calls: int
    """Network evaluations per set."""

    def rows(self, queries: Floats, noise: Floats) -> Floats:
        """Unit queries [B, d] and standard normal noise [draws, B, L, d] -> rows [B, L, d] of about unit length."""
        ...


class TorchEngine:
    """The network in torch. dtype and compiled as in `SetSampler`, device as torch names it.

    graphs: on an accelerator, record the sampler once for every batch size and play it back from then on.
    """

    def __init__(
        self,
        folder: Path,
        sampler: Sampler | None,
        *,
        dtype: str = "float32",
        compiled: bool = False,
        graphs: bool = False,
        device: str = "cpu",
    ) -> None:
        if importlib.util.find_spec("torch") is None:
            raise UserError("this engine needs torch: pip install torch, or use engine='onnx' (r4t export --onnx)")
        import torch

        from r4t.diffusion.checkpoint import WEIGHTS, load_denoiser, load_sampler_settings
        from r4t.diffusion.recorded import RecordedSampler
        from r4t.diffusion.sampler import SetSampler

        self._torch, self._device = torch, torch.device(device)
        checked(folder, WEIGHTS)
        denoiser = load_denoiser(folder).to(self._device)
        settings = sampler or load_sampler_settings(folder)
        self._sampler = SetSampler(denoiser, settings, dtype=getattr(torch, dtype), compiled=compiled)
        self.draws, self.calls = self._sampler.draws, self._sampler.nfe
        self._recorded = functools.cache(lambda batch: RecordedSampler(self._sampler, batch)) if graphs else None

    def rows(self, queries: Floats, noise: Floats) -> Floats:
        sampler = self._sampler if self._recorded is None else self._recorded(len(queries))
        with self._torch.inference_mode():
            given = (self._torch.from_numpy(array).to(self._device) for array in (queries, noise))
            return sampler.solve(*given).cpu().numpy()


class OnnxEngine:
    """An exported graph in ONNX Runtime, on the CPU. threads: None leaves the number to ONNX Runtime."""

    def __init__(self, graph: Path, *, threads: int | None = None, calls: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise UserError("this engine needs ONNX Runtime: pip install onnxruntime==1.32.0") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # Threads that spin while they wait for the next call keep the search that follows from their cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        _, noise = self._session.get_inputs()
        self.draws, self.calls = int(noise.shape[0]), calls

    def rows(self, queries: Floats, noise: Floats) -> Floats:
        found = self._session.run(None, {"queries": queries, "noise": noise})[0]
        return np.asarray(found, dtype=np.float32)
