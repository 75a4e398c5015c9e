"""The paper's tables and figures on open catalogues.

    python -m benchmarks.study run benchmarks/study/tiny.yaml --dir runs/study-tiny [--only 'oar-*-0'] [--minutes 60]
    python -m benchmarks.study status benchmarks/study/tiny.yaml --dir runs/study-tiny
    python -m benchmarks.study report benchmarks/study/tiny.yaml --dir runs/study-tiny --out docs
    python -m benchmarks.study archive benchmarks/study/tiny.yaml --dir runs/study-tiny --out FOLDER
    python -m benchmarks.study --smoke [--dir runs/study-smoke]

`run` does what is missing, one stage after another, and goes on where it was after any interruption; a run that fails
is named and the others go on. `report` makes every table and figure from the runs alone: the same runs, the same bytes.
`archive` copies what it reads of the whole runs, small enough to publish: `report --dir` takes an archive, and `run`
goes on from a copy of one.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.study import state
from benchmarks.study.archive import archive
from benchmarks.study.plan import jobs_of, load_study
from benchmarks.study.report import write_report
from benchmarks.study.runner import Runner
from r4t.errors import UserError

HERE = Path(__file__).parent


def run(study: Path, directory: Path, only: str | None, minutes: float | None) -> int:
    """Exit status: 1 when a run failed."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    jobs = jobs_of(load_study(study), study.parent, only)
    failed = Runner(study, directory, deadline).run(jobs)
    print(state.show(state.describe(jobs, directory)))
    return 1 if failed else 0


def smoke(directory: Path) -> int:
    """Every kind of cell in miniature, then its report."""
    study = HERE / "smoke.yaml"
    code = run(study, directory, None, None)
    return code or report(study, directory, directory / "report")


def report(study: Path, directory: Path, out: Path) -> int:
    for path in write_report(load_study(study), jobs_of(load_study(study), study.parent), directory, out):
        print(path)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=("run", "status", "report", "archive"))
    parser.add_argument("study", nargs="?", type=Path, metavar="STUDY.yaml")
    parser.add_argument("--dir", type=Path, help="where the runs are; default: runs/study-<name of the file>")
    parser.add_argument("--only", help="run: a pattern of run names")
    parser.add_argument("--minutes", type=float, help="run: stop cleanly after so long")
    parser.add_argument("--out", type=Path, help="report, archive: the folder to write into; default of report: docs")
    parser.add_argument("--smoke", action="store_true", help="run and report a miniature of the whole study")
    a = parser.parse_args()
    if a.smoke == (a.command is not None) or (a.command and a.study is None):
        parser.error("give a command and a study, or --smoke")
    if a.command == "archive" and a.out is None:
        parser.error("give the folder of the archive: --out FOLDER")
    directory = a.dir or Path("runs") / f"study-{'smoke' if a.smoke else a.study.stem}"
    try:
        if a.smoke:
            return smoke(directory)
        if a.command == "run":
            return run(a.study, directory, a.only, a.minutes)
        if a.command == "report":
            return report(a.study, directory, a.out or Path("docs"))
        jobs = jobs_of(load_study(a.study), a.study.parent)
        if a.command == "archive":
            print("\n".join(archive(jobs, directory, a.out)) or "no run is whole yet")
            return 0
        print(state.show(state.describe(jobs, directory)))
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
