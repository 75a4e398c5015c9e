"""Which items can be among a query's n best, judged by approximate products, without sorting them all."""

from __future__ import annotations

import torch

from r4t.catalog.index.products import Block
from r4t.types import Ints

GROUP = 16  # items looked into together, when the best of them is good enough
LANES = 4  # times n: fewer would let two of the n best share one too often
PREFIX = 256  # items looked into one by one, for a first threshold
ENTRIES = 1 << 20  # products of one block: the cache holds them


def candidates(block: Block, window: torch.Tensor, items: int, n: int) -> tuple[Ints, Ints]:
    """Query and item of every pair that the products of `block` do not rule out of the query's n best. Unordered.

    A query's threshold is the n-th best product of different items seen so far, less its `window` [m]. It only rises,
    so what lies below it is out for good. Group g of every block shares a lane; lanes hold different items, hence
    the n-th best of the lanes' maxima is a product that n items reach.
    """
    n = min(n, items)
    prefix = _prefix(items, n)
    head = block(0, prefix).t().contiguous()  # [m, prefix]
    best = head.topk(n, dim=1, sorted=False).values  # [m, n]
    threshold = best.min(dim=1).values - window
    queries, found = (head >= threshold[:, None]).nonzero(as_tuple=True)
    pairs = [(queries, found, head[queries, found])]
    step = GROUP * max(LANES * n, ENTRIES // len(window) // GROUP)
    lanes: torch.Tensor | None = None
    due = prefix
    for first in range(prefix, items, step):
        last = min(items, first + step)
        values = block(first, last).unflatten(0, (-1, GROUP))  # [groups, GROUP, m]
        tops = values.amax(dim=1)
        if lanes is None:
            lanes = tops.clone()
        else:
            torch.maximum(lanes[: len(tops)], tops, out=lanes[: len(tops)])
        if first >= due or last == items:
            highest = torch.cat([best, lanes.t()], dim=1).topk(n, dim=1, sorted=False).values
            threshold = highest.min(dim=1).values - window
            due = 2 * last
        pairs.append(_members(values, tops, threshold, first))
    queries, found, value = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    kept = value >= threshold[queries]
    return queries[kept].cpu().numpy(), found[kept].cpu().numpy()


def _prefix(items: int, n: int) -> int:
    """Length of the part looked into one by one; whole groups remain."""
    wanted = max(PREFIX, 4 * n)
    return items if items <= wanted else wanted + (items - wanted) % GROUP


def _members(
    values: torch.Tensor, tops: torch.Tensor, threshold: torch.Tensor, first: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, item and product wherever `values` [groups, GROUP, m] reaches the query's threshold."""
    some = (tops.amax(dim=0) >= threshold).nonzero()[:, 0]  # few queries find anything in a block
    groups, which = (tops[:, some] >= threshold[some]).nonzero(as_tuple=True)
    queries = some[which]
    inside = values[groups, :, queries]  # [hits, GROUP]
    hit, place = (inside >= threshold[queries, None]).nonzero(as_tuple=True)
    return queries[hit], first + groups[hit] * GROUP + place, inside[hit, place]
