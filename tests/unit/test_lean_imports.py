"""What the large libraries are imported without, and that everything is as before afterwards."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from r4t.lean_imports import COMPILER, RESAMPLING, Distributions, collector_at_rest, lean_imports, without_compiler

LOADED = "sorted({name.split('.')[0] for name in sys.modules} & {'scipy', 'sklearn'})"


@pytest.fixture
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def said_by(program: str) -> str:
    env = os.environ | {"TORCHDYNAMO_DISABLE": "1"}
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env).stdout


@pytest.mark.parametrize(
    "what", ["from transformers import LlamaForCausalLM", "import deepspeed", "from vllm import LLM"]
)
def test_engines_and_language_models_do_without_what_no_run_uses(what: str) -> None:
    program = (
        "import sys; from r4t.lean_imports import lean_imports\n"
        f"with lean_imports():\n    {what}\n"
        "from transformers import utils\n"
        f"print({LOADED}, utils.is_sklearn_available(), utils.is_scipy_available())\n"
        "packages = utils.import_utils.PACKAGE_DISTRIBUTION_MAPPING\n"
        "print(packages['torch'], '_every' in vars(packages))\n"
        "print('vllm' in sys.modules and 'torch._inductor.lowering' in sys.modules)\n"
        "import scipy.signal, sklearn\n"
        f"print({LOADED})"
    )
    lines = said_by(program).splitlines()
    assert lines[-4] == "[] True True", "and the answers of transformers are as before"
    assert lines[-3] == "['torch'] False", "nothing lists all that is installed"
    assert lines[-2] == "False", "vLLM does not import what it would mend in torch's compiler"
    assert lines[-1] == "['scipy', 'sklearn']", "and both can still be had"


def test_the_distribution_of_a_package_is_one_that_holds_it() -> None:
    every, found = metadata.packages_distributions(), Distributions()
    assert [package for package in every if found[package][0] not in every[package]] == []
    assert found["PIL"] == ["pillow"]
    assert found.get("no_such_package") is None
    assert dict(found).keys() == every.keys()
    assert len(found) == len(every)


@pytest.mark.parametrize(("disabled", "left_out"), [("1", True), ("0", False), (None, False)])
def test_the_compiler_is_left_out_only_where_nothing_is_compiled(
    disabled: str | None, left_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    monkeypatch.delitem(sys.modules, COMPILER, raising=False)
    if disabled is not None:
        monkeypatch.setenv("TORCHDYNAMO_DISABLE", disabled)
    with without_compiler():
        assert (COMPILER in sys.modules) is left_out
    stands = sys.modules.pop(COMPILER, None)
    if stands is not None:
        spec = importlib.util.find_spec("vllm")
        assert spec is not None
        assert spec.origin is not None
        sources = [path.read_text() for path in Path(spec.origin).parent.rglob("*.py")]
        asked = {name for source in sources for name in re.findall(rf"from {COMPILER} import (\w+)", source)}
        assert asked
        assert [name for name in asked if not hasattr(stands, name)] == [], "what vLLM asks of it later is there"


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
    lists = metadata.packages_distributions
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
    assert metadata.packages_distributions is lists
