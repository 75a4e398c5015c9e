"""transformers without what no process of a run uses: half a second of every one that starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_sklearn() -> Iterator[None]:
    """Has the language models that are imported in the block do without scikit-learn.

    transformers imports it where it is installed, to tune the confidence threshold of assisted generation.
    """
    from transformers import utils

    known = utils.is_sklearn_available
    utils.is_sklearn_available = lambda: False
    try:
        yield
    finally:
        utils.is_sklearn_available = known
