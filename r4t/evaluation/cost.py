"""What answering 1,000 queries costs on a rented machine."""

from __future__ import annotations

ASSUMPTION = (
    "every core of the machine is paid for while a batch is answered, and none in between; price per core hour from"
    " evaluate.price_per_core_hour"
)


def cost_per_thousand(milliseconds: float, batch: int, cores: int, price: float) -> float:
    """Price of 1,000 queries in batches of `batch` that take `milliseconds` each on `cores` at `price` an hour each."""
    return 1000 / batch * milliseconds / 1000 / 3600 * cores * price
