"""Imports of the large libraries without what no process of a run uses: seconds of every one that starts."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import metadata
from types import ModuleType
from typing import cast

RESAMPLING = "scipy.signal"
COMPILER, MEND = "vllm.env_override", "_apply_constrain_to_fx_strides_patch"
_every_package = metadata.packages_distributions


@contextmanager
def lean_imports() -> Iterator[None]:
    """All of the below, for what imports vLLM, DeepSpeed or a language model."""
    with collector_at_rest(), packages_on_demand(), without_scipy(), without_compiler():
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
def packages_on_demand() -> Iterator[None]:
    """Has transformers, imported in the block, look for the distribution of a package when it wants to know it.

    It would read the lists of all files that are installed, to know the distributions of three packages.
    """
    metadata.packages_distributions = Distributions
    try:
        yield
    finally:
        metadata.packages_distributions = _every_package


class Distributions(Mapping[str, list[str]]):
    """Which distributions hold a package, as `importlib.metadata.packages_distributions` returns it."""

    def __getitem__(self, package: str) -> list[str]:
        try:
            return [metadata.distribution(package).name]
        except metadata.PackageNotFoundError:  # its distribution may have another name
            return self._every[package]

    def __iter__(self) -> Iterator[str]:
        return iter(self._every)

    def __len__(self) -> int:
        return len(self._every)

    @cached_property
    def _every(self) -> Mapping[str, list[str]]:
        return _every_package()


@contextmanager
def without_compiler() -> Iterator[None]:
    """Where torch compiles nothing (TORCHDYNAMO_DISABLE), has vLLM, imported in the block, leave its compiler as it is.

    vLLM would import the larger part of it, to mend what is never asked. Later imports find the same.
    """
    if os.environ.get("TORCHDYNAMO_DISABLE") == "1" and COMPILER not in sys.modules:
        mends = ModuleType(COMPILER)
        setattr(mends, MEND, lambda: None)
        sys.modules[COMPILER] = mends
    yield


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
