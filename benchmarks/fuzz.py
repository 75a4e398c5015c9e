"""Hostile input against everything that reads what others wrote; prints JSON.

Each target gets random mutations of good input: bytes flipped, cut, repeated, spliced, tokens of the format put in. A
finding is an exception other than the one the reader promises (UserError), a wrong result where a property is known, an
input that takes longer than `SLOW` seconds, or memory that grows past `GROWTH`. The seed decides every input.
`--coverage` lets atheris guide the mutations by the branches that they reach instead.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from benchmarks.fuzz_targets import TARGETS, Target

SLOW = 2.0  # seconds of processor time for one input
GROWTH = 1 << 30  # bytes
KEPT = 20  # findings shown of one target


@dataclass(slots=True)
class Result:
    """What one target did with its inputs."""

    target: str
    inputs: int = 0
    refused: int = 0
    """Inputs that ended in the promised error."""
    seconds: float = 0.0
    slowest: float = 0.0
    grown_mib: float = 0.0
    findings: list[str] = field(default_factory=list)


def mutate(rng: random.Random, seeds: list[bytes], words: list[bytes]) -> bytes:
    """One input: a seed with a few small changes; one in twenty is noise."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(64))
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 5, 8))):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at] = rng.choice(words)
        elif kind == 2:
            del data[at : at + rng.randrange(1, 12)]
        elif kind == 3:
            piece = data[at : at + rng.randrange(1, 24)]
            data[at:at] = piece * rng.randrange(1, 4)
        elif kind == 4 and at < len(data):
            data[at] = rng.randrange(256)
        else:
            other = rng.choice(seeds)
            cut = rng.randrange(len(other) + 1)
            data[at:] = other[cut : cut + rng.randrange(1, 200)]
    return bytes(data[:20_000])


def check(target: Target, data: bytes, result: Result) -> None:
    """Runs one input and notes what it did."""
    started = time.process_time()
    try:
        result.refused += not target.run(data)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        result.findings.append(f"{type(error).__name__} at {where}: {str(error)[:100]!r} for {data[:200]!r}")
    spent = time.process_time() - started
    result.slowest = max(result.slowest, spent)
    if spent > SLOW:
        result.findings.append(f"{spent:.1f} s for {data[:200]!r}")
    result.inputs += 1


def fuzz(target: Target, inputs: int, seconds: float, seed: int) -> Result:
    """At most `inputs` mutated inputs, and at most `seconds` of processor time, whichever ends first."""
    rng = random.Random(f"{seed} {target.name}")
    result, started, process = Result(target.name), time.process_time(), psutil.Process()
    check(target, target.seeds[0], Result("warm-up"))
    before = process.memory_info().rss
    while result.inputs < inputs and time.process_time() - started < seconds and len(result.findings) < KEPT:
        check(target, mutate(rng, target.seeds, target.words), result)
    result.seconds = round(time.process_time() - started, 1)
    result.slowest = round(result.slowest, 3)
    grown = process.memory_info().rss - before
    result.grown_mib = round(grown / 2**20, 1)
    if grown > GROWTH:
        result.findings.append(f"memory grew by {grown >> 20} MiB")
    return result


def coverage_guided(target: Target, inputs: int) -> None:
    """Hands the target to atheris, which ends the process itself."""
    import atheris

    def one(data: bytes) -> None:
        result = Result(target.name)
        check(target, data, result)
        if result.findings:
            raise RuntimeError(result.findings[0])

    atheris.Setup([sys.argv[0], f"-runs={inputs}", "-timeout=10", "-rss_limit_mb=8192"], one)
    atheris.instrument_all()
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all targets, shared by their speed")
    parser.add_argument("--seconds", type=float, default=1200.0, help="of processor time, limit for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=[target.name for target in TARGETS], help="only this one")
    parser.add_argument("--coverage", action="store_true", help="guided by atheris; needs --target")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="r4t-fuzz-") as name:
        chosen = [target for target in TARGETS if args.target in (None, target.name)]
        for target in chosen:
            target.open(Path(name))
        if args.coverage:
            if args.target is None:
                parser.error("--coverage needs --target")
            coverage_guided(chosen[0], args.inputs)
            return
        whole = sum(target.share for target in chosen)
        results = [
            fuzz(target, round(args.inputs * target.share / whole), args.seconds, args.seed) for target in chosen
        ]
    print(json.dumps({"inputs": sum(r.inputs for r in results), "targets": [asdict(r) for r in results]}, indent=2))
    sys.exit(any(r.findings for r in results))


if __name__ == "__main__":
    main()
