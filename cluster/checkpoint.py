"""Learner checkpoints without pickle that any number of ranks and any ZeRO stage can load.

ZeRO cuts fp32 master weights and Adam moments into pieces, each stage in its own way. Every rank writes its pieces
under the parameter's name and the place inside it (`model.norm.weight@0.exp_avg`); a reader asks for the pieces *it*
needs and gets them from whichever files hold them. No gathering, and the same layout gives back the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cluster.adapters import trainable
from cluster.zero import gathered
from r4t.errors import UserError
from r4t.full_disk import full_disk_named

MASTER = "master"


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Elements `start ... start + size` of a flattened parameter, at `offset` of a tensor the optimiser steps."""

    name: str
    start: int
    size: int
    held: torch.Tensor
    offset: int

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """This piece of `held`, or of a moment of the same shape."""
        return tensor.detach().view(-1)[self.offset : self.offset + self.size]


def pieces(module: torch.nn.Module, optimizer: Any, zero_stage: int, rank: int) -> Iterator[Piece]:
    """The pieces that this rank's optimiser holds."""
    base = _base(optimizer)
    named = trainable(module)
    if zero_stage == 0:
        held = [tensor for group in base.param_groups for tensor in group["params"]]
        for (name, _), tensor in zip(named, held, strict=True):
            yield Piece(name=name, start=0, size=tensor.numel(), held=tensor, offset=0)
        return
    for name, parameter in named:
        if zero_stage == 3:
            group, offset, share = optimizer.grad_position[optimizer.get_param_id(parameter)]
            held, start = optimizer.fp32_partitioned_groups_flat[group], rank * share
            size = min(share, parameter.ds_numel - start)  # the last rank's share is padded
        elif parameter._hp_mapping is not None:  # else another rank holds all of it
            link = parameter._hp_mapping
            held = base.param_groups[link.param_group_index]["params"][0]
            offset, start = link.hp_fragment_address.start, link.lp_fragment_address.start
            size = link.hp_fragment_address.numel
        else:
            continue
        if size > 0:
            yield Piece(name=name, start=start, size=size, held=held, offset=offset)


def save_state(folder: Path, module: torch.nn.Module, optimizer: Any, *, zero_stage: int, rank: int) -> None:
    """Writes this rank's pieces to `folder/rank-<rank>.safetensors`."""
    if zero_stage == 0 and rank > 0:
        return  # every rank holds the same
    tensors: dict[str, torch.Tensor] = {}
    for piece in pieces(module, optimizer, zero_stage, rank):
        key = f"{piece.name}@{piece.start}"
        tensors[f"{key}.{MASTER}"] = piece.of(piece.held).to("cpu", copy=True)
        for slot, value in _base(optimizer).state[piece.held].items():
            value = torch.as_tensor(value)
            tensors[f"{key}.{slot}"] = (piece.of(value) if value.ndim else value).detach().to("cpu", copy=True)
    path = folder / f"rank-{rank}.safetensors"
    with full_disk_named(path):
        save_file(tensors, path)


def load_state(folder: Path, module: torch.nn.Module, optimizer: Any, *, zero_stage: int, rank: int) -> None:
    """*Collective under ZeRO-3.* Puts saved weights and moments back into what is trained; the rest stays as it is.

    Raises UserError when `folder` does not hold all that this model trains.
    """
    saved = SavedState(folder)
    for name, parameter in trainable(module):
        with torch.no_grad(), gathered([parameter], zero_stage, modifier_rank=0):
            if zero_stage < 3 or rank == 0:
                parameter.data.copy_(saved.whole(name, parameter))
    state = _base(optimizer).state
    for piece in pieces(module, optimizer, zero_stage, rank):
        piece.of(piece.held).copy_(saved.read(piece, MASTER))
        own = state[piece.held]
        for slot in saved.slots[piece.name] - {MASTER}:
            value = saved.read(piece, slot)
            if value.ndim:
                own.setdefault(slot, torch.zeros_like(piece.held, requires_grad=False))
                piece.of(own[slot]).copy_(value)
            else:
                own[slot] = value


class SavedState:
    """The pieces in a checkpoint folder, from all ranks that wrote one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots: dict[str, set[str]] = {}
        self._places: dict[tuple[str, str], list[tuple[int, str, Any]]] = {}
        for path in sorted(folder.glob("rank-*.safetensors")):
            file = safe_open(path, framework="pt")
            for key in file.keys():  # noqa: SIM118  a safe_open handle is no dict
                place, _, slot = key.rpartition(".")
                name, _, start = place.rpartition("@")
                self.slots.setdefault(name, set()).add(slot)
                self._places.setdefault((name, slot), []).append((int(start), key, file))

    def size(self, name: str) -> int:
        """Values that the folder holds of a parameter."""
        return sum(file.get_slice(key).get_shape()[0] for _, key, file in self._places[name, MASTER])

    def whole(self, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """The master weights of a parameter that is whole here, in its shape."""
        piece = Piece(name=name, start=0, size=parameter.numel(), held=parameter, offset=0)
        return self.read(piece, MASTER).view(parameter.shape)

    def read(self, piece: Piece, slot: str) -> torch.Tensor:
        """[size] the values of a piece, or the scalar that all pieces of its parameter share."""
        wanted: torch.Tensor | None = None
        found = 0
        for start, key, file in self._places.get((piece.name, slot), []):
            part = file.get_slice(key)
            if not part.get_shape():
                return file.get_tensor(key)
            low, high = max(piece.start, start), min(piece.start + piece.size, start + part.get_shape()[0])
            if low < high:
                values = part[low - start : high - start]
                wanted = torch.empty(piece.size, dtype=values.dtype) if wanted is None else wanted
                wanted[low - piece.start : high - piece.start] = values
                found += high - low
        if wanted is None or found != piece.size:
            raise UserError(
                f"{self.folder} holds {found} of the {piece.size} values wanted of {piece.name}: it was written by"
                " another model, or a rank's file is missing; resume from an older checkpoint"
            )
        return wanted


def _base(optimizer: Any) -> Any:
    """The optimiser inside DeepSpeed's wrapper (there is no wrapper at stage 0 in fp32)."""
    return getattr(optimizer, "optimizer", optimizer)
