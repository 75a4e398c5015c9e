"""What the large libraries are imported without, and that everything is as before afterwards."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from r4t.lean_imports import RESAMPLING, collector_at_rest, lean_imports

LOADED = "sorted({name.split('.')[0] for name in sys.modules} & {'scipy', 'sklearn'})"


@pytest.fixture
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def said_by(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "what", ["from transformers import LlamaForCausalLM", "import deepspeed", "from vllm import LLM"]
)
def test_engines_and_language_models_do_without_scipy_and_what_is_built_on_it(what: str) -> None:
    program = (
        "import sys; from r4t.lean_imports import lean_imports\n"
        f"with lean_imports():\n    {what}\n"
        "from transformers import utils\n"
        f"print({LOADED}, utils.is_sklearn_available(), utils.is_scipy_available())\n"
        "import scipy.signal, sklearn\n"
        f"print({LOADED})"
    )
    lines = said_by(program).splitlines()
    assert lines[-2] == "[] True True", "and the answers of transformers are as before"
    assert lines[-1] == "['scipy', 'sklearn']", "and both can still be had"


def test_what_is_known_already_stays() -> None:
    program = (
        "import sys, scipy.signal; before = sys.modules['scipy.signal']; from r4t.lean_imports import lean_imports\n"
        "with lean_imports():\n    import scipy.signal; print(sys.modules['scipy.signal'] is before)\n"
        "print(sys.modules['scipy.signal'] is before)"
    )
    assert said_by(program) == "True\nTrue\n"


@pytest.mark.usefixtures("thawed")
def test_the_collector_rests_in_the_block_and_passes_over_what_was_made_there() -> None:
    collected = []
    gc.callbacks.append(lambda phase, info: collected.append(info["generation"]) if phase == "start" else None)
    try:
        with collector_at_rest():
            collected.clear()
            made = [[] for _ in range(20_000)]  # many times what starts a collection
            assert not gc.isenabled()
        assert collected == []
    finally:
        gc.callbacks.pop()
    assert gc.isenabled()
    assert not any(found is made for found in gc.get_objects()), "frozen: no collection looks at it"
    assert gc.get_freeze_count() >= len(made)


@pytest.mark.usefixtures("thawed")
def test_garbage_from_before_the_block_is_not_kept() -> None:
    class Held:
        pass

    gone: list[str] = []
    held = Held()
    held.itself = held  # type: ignore[attr-defined]
    held.__class__.__del__ = lambda _: gone.append("gone")  # type: ignore[attr-defined]
    del held
    with collector_at_rest():
        assert gone == ["gone"]


@pytest.mark.usefixtures("thawed")
@pytest.mark.parametrize("runs", [True, False])
def test_a_block_that_raises_leaves_everything_as_it_was(runs: bool) -> None:
    from transformers import utils

    known = utils.is_sklearn_available, utils.is_scipy_available
    had = RESAMPLING in sys.modules
    if not runs:
        gc.disable()
    try:
        with pytest.raises(ImportError, match="no such"), lean_imports():
            raise ImportError("no such")
        assert gc.isenabled() is runs
    finally:
        gc.enable()
    assert (utils.is_sklearn_available, utils.is_scipy_available) == known
    assert (RESAMPLING in sys.modules) is had
