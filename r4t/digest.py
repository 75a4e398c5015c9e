"""Hashes of tensors, to tell whether two processes hold the same weights."""

from __future__ import annotations

import hashlib

import torch


def tensor_digest(tensor: torch.Tensor) -> str:
    """Hash of dtype, shape and values. Zero and minus zero are one value: they multiply alike."""
    values = tensor.detach().to("cpu") + 0.0
    digest = hashlib.blake2b(f"{values.dtype} {tuple(values.shape)} ".encode(), digest_size=16)
    digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
