"""Mutation scores: the share of small changes to the mathematics that a test notices.

    make mutation

Prints JSON, from what `mutmut run` left in mutants/: for r4t.grpo, r4t.objective and r4t.diffusion their scores and
survivors by file. A change that no chosen test runs counts as unnoticed, one that makes a test time out as noticed.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

FOLDER = Path("mutants/r4t")
UNNOTICED = {0: "survived", 33: "no test"}
"""By exit code of the tests."""


def scores(folder: Path) -> dict[str, dict[str, object]]:
    """Of each module below `folder`: changes, how many were noticed, and where the others are."""
    found: dict[str, Counter[str]] = {}
    missed: dict[str, Counter[str]] = {}
    for path in sorted(folder.rglob("*.meta")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        module = name.split("/")[0].removesuffix(".py")
        for code in json.loads(path.read_text())["exit_code_by_key"].values():
            if code is None:
                raise SystemExit(f"{path} is not finished: run `make mutation` again, it goes on")
            result = UNNOTICED.get(code, "noticed")
            found.setdefault(module, Counter())[result] += 1
            if code in UNNOTICED:
                missed.setdefault(module, Counter())[name] += 1
    return {
        module: {
            "changes": counts.total(),
            **counts,
            "score": round(counts["noticed"] / counts.total(), 3),
            "unnoticed by file": dict(missed.get(module, Counter()).most_common()),
        }
        for module, counts in found.items()
    }


def main() -> None:
    if not FOLDER.is_dir():
        raise SystemExit(f"no {FOLDER}: run `make mutation`")
    json.dump(scores(FOLDER), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
