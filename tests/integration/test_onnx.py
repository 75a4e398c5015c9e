"""The sampler as an ONNX graph against torch, and served where there is no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export_fixtures import DIM, NAMES, ROWS, made_run
from support import flip

from jobs.export import export
from r4t.config import Sampler
from r4t.diffusion import export as onnx_export
from r4t.diffusion.checkpoint import load_denoiser
from r4t.diffusion.export import export_onnx
from r4t.diffusion.sampler import SetSampler
from r4t.diffusion.solvers import SOLVERS
from r4t.errors import UserError
from r4t.retriever import R4TRetriever

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("onnx") / "run")


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    made = export(run, run.parent / "exported", int8=True)
    assert made["onnx_difference"] < 1e-4
    assert made["int8_cosine_mean"] > 0.99
    assert made["int8_cosine_min"] <= made["int8_cosine_mean"] < 1
    return run.parent / "exported"


@pytest.mark.parametrize("name", sorted(SOLVERS))
@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_every_solver_exports(run: Path, tmp_path: Path, name: str, guidance: float) -> None:
    sampler = SetSampler(load_denoiser(run / "retriever"), Sampler(name=name, steps=3, guidance=guidance))
    assert export_onnx(sampler, tmp_path / "model.onnx") < 1e-4


def test_the_weights_are_stored_once(run: Path, tmp_path: Path) -> None:
    denoiser = load_denoiser(run / "retriever")
    sizes = []
    for steps in (1, 4):
        export_onnx(SetSampler(denoiser, Sampler(steps=steps, guidance=0)), tmp_path / "model.onnx")
        sizes.append((tmp_path / "model.onnx").stat().st_size)
    weights = (run / "retriever" / "model.safetensors").stat().st_size
    assert sizes[1] - sizes[0] < 3 * weights


def test_the_weights_of_every_call_are_in_8_bits(exported: Path) -> None:
    import onnx

    graph = onnx.load(str(exported / "model.int8.onnx")).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulInteger") >= 3 * (2 + 2 * 4)  # calls x (in, out, and four products a layer)
    weights = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
    largest = max(int(np.abs(weight.astype(int)).max()) for weight in weights)
    assert 32 < largest <= 64, "two products with more than 7 bits overflow where a processor adds them in 16"
    assert "int8.onnx`, cosine of its rows" in (exported / "README.md").read_text()


def test_every_engine_draws_the_same_sets(exported: Path) -> None:
    torch_engine = R4TRetriever.from_pretrained(exported)
    graph = R4TRetriever.from_pretrained(exported, engine="onnx", threads=1)
    short = R4TRetriever.from_pretrained(exported, engine="onnx-int8", threads=1)
    queries = [f"query {number}" for number in range(7)]
    expected = torch_engine.embed(queries, seed=3)
    np.testing.assert_allclose(graph.embed(queries, seed=3), expected, atol=1e-4)
    assert np.einsum("bld,bld->bl", short.embed(queries, seed=3), expected).mean() > 0.99
    assert graph.calls == torch_engine.calls == 6
    for found, other in zip(graph.retrieve(queries, 3), torch_engine.retrieve(queries, 3), strict=True):
        assert [item.item_id for item in found.items] == [item.item_id for item in other.items]


def test_a_server_needs_no_torch(exported: Path) -> None:
    program = """
import sys
sys.modules["torch"] = None  # importing it fails, as where it is not installed
from r4t.errors import UserError
from r4t.retriever import R4TRetriever
retriever = R4TRetriever.from_pretrained(sys.argv[1], engine="onnx")
print(*(item.item_id for item in retriever.retrieve("warm", 3)[0].items), sep="|")
try:
    R4TRetriever.from_pretrained(sys.argv[1])
except UserError as error:
    assert "needs torch" in str(error), error
else:
    raise AssertionError("torch was there")
"""
    done = subprocess.run([sys.executable, "-c", program, str(exported)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = R4TRetriever.from_pretrained(exported).retrieve("warm", 3)[0].items
    assert done.stdout.strip().split("|") == [item.item_id for item in expected]
    assert set(done.stdout.strip().split("|")) <= set(NAMES)


def test_a_graph_that_differs_is_not_left(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "PARITY", 1e-12)
    with pytest.raises(UserError, match="differs from torch by"):
        export_onnx(SetSampler(load_denoiser(run / "retriever"), Sampler(steps=2)), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_or_opened(run: Path, exported: Path, tmp_path: Path) -> None:
    sampler = SetSampler(load_denoiser(run / "retriever"), Sampler(steps=65, guidance=0))
    with pytest.raises(UserError, match="65 network calls"):
        export_onnx(sampler, tmp_path / "model.onnx")
    with pytest.raises(UserError, match="graph holds its sampler"):
        R4TRetriever.from_pretrained(exported, engine="onnx", sampler=Sampler())
    flip(exported / "model.onnx", -2000)
    with pytest.raises(UserError, match="damaged"):
        R4TRetriever.from_pretrained(exported, engine="onnx")
    (exported / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model\.onnx is missing: export the retriever again, with it"):
        R4TRetriever.from_pretrained(exported, engine="onnx")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(onnx_export.PACKAGES, "no_such_package", "no-such-package==1")
    with pytest.raises(UserError, match="pip install no-such-package==1"):
        onnx_export.check_packages()


def test_a_noise_of_many_draws_reaches_the_graph(run: Path, tmp_path: Path) -> None:
    import onnxruntime

    sampler = SetSampler(load_denoiser(run / "retriever"), Sampler(name="euler_maruyama", steps=3, guidance=0))
    export_onnx(sampler, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    queries = np.eye(2, DIM, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal((3, 2, ROWS, DIM)).astype(np.float32)
    expected = sampler.solve(torch.from_numpy(queries), torch.from_numpy(noise)).detach().numpy()
    found = session.run(None, {"queries": queries, "noise": noise})[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    noise[2] = 0
    assert np.abs(session.run(None, {"queries": queries, "noise": noise})[0] - found).max() > 1e-3
