"""What runs inside vLLM's own worker process: replaces the weights, and reads back what the engine computes with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from safetensors.torch import load_file
from vllm.distributed import tensor_model_parallel_all_gather

from r4t.digest import tensor_digest

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


class WeightReceiver:
    """Mixed into vLLM's worker, so that its methods can be called by `collective_rpc`."""

    model_runner: Any

    def receive_weights(self, path: str) -> None:
        """Loads a safetensors file through vLLM's reload path (a bare load breaks on CPU, which repacks weights)."""
        tensors = load_file(path)

        def named() -> Iterator[tuple[str, torch.Tensor]]:
            yield from tensors.items()

        self.model_runner.reload_weights(weights_iterator=named())
        self.retie()

    def retie(self) -> None:
        """A tied output head keeps a packed copy of the old embeddings through a reload: tie and pack it again."""
        model, head = self._model_and_tied_head()
        if head is not None:
            head.tie_weights(model.model.embed_tokens)
            head.quant_method.process_weights_after_loading(head)

    def digest_weights(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
        """Hashes of the live weights under the Hugging Face names and shapes they arrived with.

        vLLM fuses some (q, k and v; gate and up): a part lies behind the parts before it. A tied head is hashed as the
        engine applies it. Workers that split a policy put each weight together from their shares.
        """
        model, tied = self._model_and_tied_head()
        fused = {part: whole for whole, parts in model.packed_modules_mapping.items() for part in parts}
        digests: dict[str, str] = {}
        live: tuple[str, torch.Tensor] = ("", torch.empty(0))
        for name, shape in sorted(shapes.items(), key=lambda item: _owner(item[0], fused)):
            owner = _owner(name, fused)
            if owner != live[0]:
                live = (owner, _live(model, owner))
            prefix, part, leaf = _split(name)
            siblings = model.packed_modules_mapping.get(fused.get(part, ""), [part])
            rows = [shapes[f"{prefix}{other}.{leaf}"][0] for other in siblings]
            if len(siblings) > 1:
                rows = _shares(rows, live[1].shape[0])
                start = sum(rows[: siblings.index(part)])
                own = live[1][start : start + rows[siblings.index(part)]]
            else:
                own = live[1]
            digests[name] = tensor_digest(_whole(own, shape))
        if tied is not None:
            digests[HEAD] = tensor_digest(_whole(_applied(tied, tied.embedding_dim), shapes[EMBEDDINGS]))
        return digests

    def _model_and_tied_head(self) -> tuple[Any, Any]:
        model = self.model_runner.get_model()
        head = getattr(model, "lm_head", None)
        return model, head if self.model_runner.model_config.hf_config.tie_word_embeddings else None


def _split(name: str) -> tuple[str, str, str]:
    """`model.layers.0.mlp.up_proj.weight` -> `model.layers.0.mlp.`, `up_proj`, `weight`."""
    module, _, leaf = name.rpartition(".")
    prefix, dot, part = module.rpartition(".")
    return prefix + dot, part, leaf


def _owner(name: str, fused: dict[str, str]) -> str:
    """The name under which vLLM holds a Hugging Face parameter."""
    prefix, part, leaf = _split(name)
    return f"{prefix}{fused.get(part, part)}.{leaf}"


def _live(model: torch.nn.Module, name: str) -> torch.Tensor:
    """A parameter of the running model. On CPU vLLM repacks linear weights and empties the original."""
    module, _, leaf = name.rpartition(".")
    layer: Any = model.get_submodule(module)
    tensor: torch.Tensor = getattr(layer, leaf)
    return tensor if tensor.numel() else _applied(layer, layer.input_size_per_partition)


def _shares(rows: list[int], held: int) -> list[int]:
    """Rows of each fused part that one worker holds, `held` of all of them.

    Raises RuntimeError where there are more workers than key-value heads, which are then held more than once.
    """
    split = sum(rows) // held
    if split * held != sum(rows):
        raise RuntimeError(f"{held} of {sum(rows)} rows are no even share: lower rollout.tensor_parallel")
    return [count // split for count in rows]


def _whole(own: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """A weight of that shape from the shares of all workers, cut along the one dimension in which they are too small.

    Where they are not split, the rows that vLLM pads the vocabulary with go.
    """
    for dim, size in enumerate(shape):
        if own.shape[dim] < size:
            own = tensor_model_parallel_all_gather(own.contiguous(), dim)
            break
    return own[: shape[0]]


def _applied(layer: Any, width: int) -> torch.Tensor:
    """[out, width] the weight that a linear layer applies, whatever its layout: its answers to the unit vectors.

    Exact: each output is one weight plus zeros.
    """
    dtype = layer.params_dtype if hasattr(layer, "params_dtype") else layer.weight.dtype
    with torch.inference_mode():
        return layer.quant_method.apply(layer, torch.eye(width, dtype=dtype, device=layer.weight.device)).T
