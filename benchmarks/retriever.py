"""How fast the compiled retriever answers: queries' vectors to sets of items, and the network alone on a GPU.

    python -m benchmarks.retriever [--networks tiny,paper] [--engines torch,onnx] [--calls 1,2,4,8]
                                   [--batches 1,8,64,1024] [--repeats 20] [--folm RUN]
    python -m benchmarks.retriever --device cuda        # needs torch alone

On CPU each row times rows drawn plus the search for their nearest items among `--items` random ones, against the same
network's 256-step guided sampler (Euler-Maruyama, 512 network calls) in the same run: `against_256` is that many times
faster. `tiny` is the default network, `paper` Table 3's, the others change the default's width or depth; weights are
random, which changes no time. The reference
runs at `--reference-batches` only, few times, because it takes minutes. With `--folm`, `against_folm` is the same ratio
to the language model of a run (`benchmarks.folm_latency`), timed just before.
On a GPU: the whole sampler as one recorded graph, float32 and bfloat16, and a training step at batch 512, with the
floating-point operations of their matrix products as a share of what one large bfloat16 product reaches.
Prints JSON at its end, and every row to stderr as soon as it is there. Rows for the device that is not there are marked
"not measured".
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from r4t.diffusion.denoiser import DenoiserConfig, SetDenoiser
from r4t.diffusion.loss import denoising_loss
from r4t.diffusion.recorded import RecordedSampler
from r4t.diffusion.sampler import SetSampler

if TYPE_CHECKING:
    from r4t.retriever import ItemIndex

DIM, ROWS, K = 128, 12, 10
TINY: dict[str, Any] = {"hidden": 128, "mlp": 256, "layers": 3, "heads": 4, "noise_dim": 64, "register_token": True}
SIZES: dict[str, dict[str, int]] = {  # the tiny network's, changed
    "layers_1": {"layers": 1},
    "wide_64": {"hidden": 64, "mlp": 128},
    "wide_32": {"hidden": 32, "mlp": 64},
    "wide_32_layers_1": {"hidden": 32, "mlp": 64, "layers": 1},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "tiny": TINY,
    **{name: TINY | size for name, size in SIZES.items()},
    "paper": {"hidden": 1024, "mlp": 1024, "layers": 6, "heads": 16, "noise_dim": 128, "register_token": False},
}
TRAINING_BATCH = 512
Draw = Callable[[Tensor, Tensor], Any]


def network(name: str) -> SetDenoiser:
    """A network of that size, every weight of which matters."""
    torch.manual_seed(0)
    shape = {"rows": ROWS, "dim": DIM, "dropout": 0.1, "attention_dropout": 0.1, "sigma_data": DIM**-0.5}
    denoiser = SetDenoiser(DenoiserConfig(**NETWORKS[name], **shape, sigma_min=1e-4, sigma_max=7.0))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return denoiser.eval()


def sampler_settings(name: str, calls: int, guidance: float) -> Any:
    """What `SetSampler` reads of `r4t.config.Sampler`, which needs more than torch."""
    return SimpleNamespace(name=name, steps=calls, guidance=guidance, sigma_max=None, sigma_end=1e-3, rho=7.0)


def quantiles(
    work: Callable[[], object], repeats: int, wait: Callable[[], object] = lambda: None, warm_up: int = 3
) -> dict[str, Any]:
    """Milliseconds, on the clock, after `warm_up` calls; `wait` returns when the device has finished."""
    for _ in range(warm_up):
        work()
    taken = []
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        work()
        wait()
        taken.append(1e3 * (time.perf_counter() - started))
    p50, p95 = torch.tensor(taken).quantile(torch.tensor([0.5, 0.95])).tolist()
    return {"p50_ms": round(p50, 3), "p95_ms": round(p95, 3), "repeats": repeats}


def queries(batch: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(batch, DIM, generator=torch.Generator().manual_seed(1)), dim=-1)


def drawer(engine: str, denoiser: SetDenoiser, settings: Any) -> Draw:
    """(query vectors, noise) -> rows, by one of the engines of `r4t.retriever`."""
    from r4t.diffusion.export import export_onnx, quantise
    from r4t.retriever.engines import OnnxEngine
    from r4t.retriever.files import ONNX, ONNX_INT8

    if engine.startswith("torch"):
        sampler = SetSampler(denoiser, settings, dtype=torch.bfloat16 if engine == "torch-bf16" else None)

        def draw(asked: Tensor, noise: Tensor) -> Any:
            with torch.inference_mode():
                return sampler.solve(asked, noise).numpy()

        return draw
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / ONNX
        export_onnx(SetSampler(denoiser, settings), path)
        if engine == "onnx-int8":
            exact, path = path, Path(name) / ONNX_INT8
            quantise(exact, path)
        graph = OnnxEngine(path, threads=torch.get_num_threads())
    return lambda asked, noise: graph.rows(asked.numpy(), noise.numpy())


def on_cpu(a: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Drawn and searched, by network, engine, number of calls and batch."""
    indexes = {"torch": item_index(a.items, exact=True), "onnx": item_index(a.items, exact=False)}
    folm = list(folm_times(a)) if a.folm else []
    yield from folm
    written = {row["batch"]: row["p50_ms"] for row in folm}
    for name in a.networks.split(","):
        denoiser = network(name)
        about = {"device": "cpu", "network": name, "parameters": sum(p.numel() for p in denoiser.parameters())}
        reference: dict[int, float] = {}
        slow = drawer("torch", denoiser, sampler_settings("euler_maruyama", 256, 0.1))
        for batch in numbers(a.reference_batches):
            work = answer(slow, indexes["torch"], batch, draws=256)
            found = quantiles(work, a.reference_repeats, warm_up=0)
            reference[batch] = found["p50_ms"]
            yield about | {"engine": "torch", "sampler": "euler_maruyama", "calls": 512, "batch": batch} | found
        for engine in a.engines.split(","):
            index = indexes[engine.split("-")[0]]  # as the retriever itself chooses
            for calls in numbers(a.calls):
                draw = drawer(engine, denoiser, sampler_settings("dpmpp_2m", calls, 0.0))
                for batch in numbers(a.batches):
                    found = quantiles(answer(draw, index, batch, draws=1), a.repeats)
                    for against, others in (("against_256", reference), ("against_folm", written)):
                        if batch in others:
                            found[against] = round(others[batch] / found["p50_ms"], 1)
                    yield about | {"engine": engine, "sampler": "dpmpp_2m", "calls": calls, "batch": batch} | found
    for engine, index in indexes.items():
        for batch in numbers(a.batches):
            rows = queries(batch * ROWS).numpy().reshape(batch, ROWS, DIM)
            found = quantiles(functools.partial(search_rows, index, rows), a.repeats)
            yield {"device": "cpu", "what": "search alone", "engine": engine, "batch": batch} | found


def folm_times(a: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Of a run's language model, in a process of its own: its engine binds the threads of the one that it is in."""
    command = [sys.executable, "-m", "benchmarks.folm_latency", a.folm, "--batches", a.reference_batches]
    options = ["--threads", str(a.threads), "--repeats", str(a.folm_repeats)]
    done = subprocess.run([*command, *options], stdout=subprocess.PIPE, text=True, check=True)
    for row in json.loads(done.stdout)["results"]:
        yield {"device": "cpu"} | row


def item_index(items: int, exact: bool) -> ItemIndex:
    """An index over random unit vectors."""
    from r4t.retriever import ItemIndex

    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(items, DIM, generator=generator), dim=-1).numpy()
    build = ItemIndex.exact if exact else ItemIndex.of_vectors
    return build(vectors, "benchmark", [str(row) for row in range(items)])


def answer(draw: Draw, index: ItemIndex, batch: int, draws: int) -> Callable[[], object]:
    """What a server does with the vectors of a batch of queries."""
    from r4t.retriever.spread import spread_rows

    asked, noise = queries(batch), torch.randn(draws, batch, ROWS, DIM)
    return lambda: search_rows(index, spread_rows(draw(asked, noise), asked.numpy(), 1.0))


def search_rows(index: ItemIndex, rows: Any) -> object:
    from r4t.retriever.search import search_sets

    return search_sets(index, rows, K)


def on_gpu(a: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The sampler alone (query vectors to rows), recorded as one graph, and a training step."""
    device, wait = torch.device(a.device), torch.accelerator.synchronize
    ceiling = matrix_ceiling(device, wait)
    yield {"device": a.device, "what": "bfloat16 matrix ceiling", "tflops": ceiling}
    for name in a.networks.split(","):
        denoiser = network(name).to(device)
        about = {"device": a.device, "network": name, "parameters": sum(p.numel() for p in denoiser.parameters())}
        flops = call_flops(denoiser.config, folded=True)
        for dtype in (torch.float32, torch.bfloat16):
            for calls in numbers(a.calls):
                sampler = SetSampler(denoiser, sampler_settings("dpmpp_2m", calls, 0.0), dtype=dtype)
                for batch in numbers(a.batches):
                    found = quantiles(RecordedSampler(sampler, batch).replay, a.repeats, wait)
                    reached = flops * calls * batch / found["p50_ms"] / 1e9
                    shares = {"tflops": round(reached, 2), "of_ceiling": round(reached / ceiling, 4)}
                    yield about | {"dtype": str(dtype), "calls": calls, "batch": batch} | found | shares
        yield about | {"what": f"training step at batch {TRAINING_BATCH}"} | training_step(denoiser, a, device, ceiling)


def training_step(denoiser: SetDenoiser, a: argparse.Namespace, device: torch.device, ceiling: float) -> dict[str, Any]:
    """Forward, backward and Adam under bfloat16 autocast; three times the forward's operations."""
    denoiser.train()
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    sets = torch.nn.functional.normalize(torch.randn(TRAINING_BATCH, ROWS, DIM, device=device), dim=-1)
    asked, noise = queries(TRAINING_BATCH).to(device), torch.randn_like(sets)
    sigma = torch.logspace(-4, 1, TRAINING_BATCH, device=device)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = denoising_loss(denoiser, denoiser.config.sigma_data, sets, asked, sigma, noise).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    found = quantiles(step, a.repeats, torch.accelerator.synchronize)
    reached = 3 * call_flops(denoiser.config, folded=False) * TRAINING_BATCH / found["p50_ms"] / 1e9
    return {**found, "tflops": round(reached, 2), "mfu": round(reached / ceiling, 4)}


def call_flops(config: DenoiserConfig, folded: bool) -> int:
    """Floating-point operations of one network call for one set: the matrix products over its rows.

    folded: as sampling arranges the network, where cross-attention costs next to nothing (`r4t.diffusion.inference`).
    """
    hidden, rows = config.hidden, config.rows
    own = 4 * hidden * hidden + 2 * rows * hidden
    cross = 2 * hidden * (config.heads if config.register_token else 0) if folded else 2 * hidden * hidden
    per_row = config.layers * (own + cross + 2 * hidden * config.mlp) + 2 * config.dim * hidden
    return 2 * rows * per_row


def matrix_ceiling(device: torch.device, wait: Callable[[], object], size: int = 8192) -> float:
    """TFLOP/s of bfloat16 products of square matrices."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    found = quantiles(lambda: left @ right, 20, wait)
    return round(2 * size**3 / found["p50_ms"] / 1e9, 1)


def shown(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows, each written to stderr first: the whole takes ten minutes."""
    for row in rows:
        print(json.dumps(row), file=sys.stderr, flush=True)
        yield row


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def about_machine(device: str) -> dict[str, Any]:
    if device == "cpu":
        from benchmarks.environment import environment

        return environment() | {"threads": torch.get_num_threads()}
    name = torch.get_device_module(device).get_device_name() if torch.accelerator.is_available() else "none"
    return {"system": platform.platform(), "device": name, "versions": {"torch": torch.__version__}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", default="tiny,paper")
    parser.add_argument("--engines", default="torch,torch-bf16,onnx,onnx-int8", help="on CPU")
    parser.add_argument("--calls", default="1,2,4,8")
    parser.add_argument("--batches", default="1,8,64,1024")
    parser.add_argument("--reference-batches", default="1,8,64", help="of the 256-step sampler; an empty text: none")
    parser.add_argument("--reference-repeats", type=int, default=1)
    parser.add_argument("--folm", metavar="RUN", help="a run whose language model is timed at the reference batches")
    parser.add_argument("--folm-repeats", type=int, default=5)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    if a.device == "cpu":
        import faiss

        faiss.omp_set_num_threads(a.threads)
        results = [*shown(on_cpu(a)), {"device": "gpu", "what": "not measured"}]
    elif torch.accelerator.is_available():
        results = list(shown(on_gpu(a)))
    else:
        results = [{"device": a.device, "what": "not measured", "why": "torch sees no accelerator here"}]
    print(json.dumps({"schema": 1, "name": "retriever", "environment": about_machine(a.device), "results": results}))


if __name__ == "__main__":
    main()
