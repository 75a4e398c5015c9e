"""Sets have no order: which row of one stands against which row of another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

TINY = 1e-12


def match_rows(given: Tensor, others: Tensor) -> Tensor:
    """[B, L] for every row of `given` [B, L, d] the row of `others` [B, L, d] that stands against it.

    The assignment with the least sum of squared distances (Hungarian method, exact). Carries no gradient.
    """
    from scipy.optimize import linear_sum_assignment  # here: drivers import this file too, and never match

    cost = -torch.bmm(
        given.detach().float(), others.detach().float().transpose(1, 2)
    )  # lengths are the same in any order
    found = [linear_sum_assignment(one)[1] for one in cost.cpu().numpy()]
    return torch.from_numpy(np.stack(found)).to(given.device)


def in_order(sets: Tensor, order: Tensor) -> Tensor:
    """Rows of `sets` [B, L, d] in the order [B, L] of each set."""
    return torch.gather(sets, 1, order[..., None].expand_as(sets))


def set_distance(a: Tensor, b: Tensor) -> Tensor:
    """[B] mean distance of matched rows of two sets [B, L, d]; differentiable in both."""
    gaps = a - in_order(b, match_rows(a, b))
    return (gaps.square().sum(dim=-1) + TINY).sqrt().mean(dim=1)
