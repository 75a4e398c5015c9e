"""The noise of a solver as an argument: what a generator would have drawn, given from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Supplied(TorchFunctionMode):
    """While it is active `torch.randn` answers with the given tensors, in order, whatever generator it is asked for."""

    def __init__(self, noise: Iterator[Tensor]) -> None:
        super().__init__()
        self._noise = noise

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return next(self._noise) if func is torch.randn else func(*args, **(kwargs or {}))


def draws(run: Callable[[], object]) -> int:
    """How often `run` draws noise of the shape [1, 1, 1]."""
    asked = 0

    def counted() -> Iterator[Tensor]:
        nonlocal asked
        while True:
            asked += 1
            yield torch.zeros(1, 1, 1)

    with Supplied(counted()):
        run()
    return asked
