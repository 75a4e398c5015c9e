"""Imports of the large libraries without what no process of a run uses: seconds of every one that starts."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

RESAMPLING = "scipy.signal"


@contextmanager
def lean_imports() -> Iterator[None]:
    """Both of the below, for what imports vLLM, DeepSpeed or a language model."""
    with collector_at_rest(), without_scipy():
        yield


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Has the garbage collector neither run in the block nor ever look at what was made in it.

    What an import makes stays: the collector would go through it in vain, time and again, meanwhile and for as long as
    the process works. Garbage from before the block is collected first.
    """
    ran = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # else some libraries say as Python ends that they leak
        if ran:
            gc.enable()


@contextmanager
def without_scipy() -> Iterator[None]:
    """Has the language models and engines that are imported in the block do without SciPy and scikit-learn.

    Both import what is installed: transformers for the confidence threshold of assisted generation and for the losses
    of object detection, vLLM to resample sound. Afterwards they can be imported as before.
    """
    from transformers import utils

    known = utils.is_sklearn_available, utils.is_scipy_available
    utils.is_sklearn_available = utils.is_scipy_available = lambda: False
    hides = RESAMPLING not in sys.modules
    if hides:
        sys.modules[RESAMPLING] = cast(ModuleType, None)  # which Python takes for "cannot be imported"
    try:
        yield
    finally:
        utils.is_sklearn_available, utils.is_scipy_available = known
        if hides:
            sys.modules.pop(RESAMPLING, None)
