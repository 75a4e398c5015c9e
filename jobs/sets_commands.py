"""`r4t sets`: look at the training sets of a run, and fit them to a changed catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import AsJson, RunFolder

app = typer.Typer(help="Training sets: what they hold, and what a new catalogue makes of them.", no_args_is_help=True)


@app.command()
def stats(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Also draw the histograms.")] = None,
    zero_shot: Annotated[bool, typer.Option("--zero-shot", help="The sets of the policy before RL.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print counts, coverage of the catalogue, and how the reward and its terms are spread."""
    from jobs import sets_stats as job
    from r4t.lineage import to_json

    found = job.stats(run, out, zero_shot)
    typer.echo(to_json(found) if as_json else job.show(found))


@app.command()
def reground(
    run: RunFolder,
    catalog: Annotated[
        Path, typer.Option(metavar="NEW", help="A run over the new catalogue, or a finished prepare folder.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the new sets go; default: NEW/sets, if NEW is a run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Search a new catalogue with the sub-queries of existing sets, without the language model, and count changes."""
    from jobs import sets_reground as job
    from r4t.lineage import to_json

    found = job.reground(run, catalog, out)
    typer.echo(to_json(found) if as_json else job.show(found))


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file.")],
    measured: Annotated[Path, typer.Option(metavar="FILE", help="What `benchmarks.synthesis RUN --engine` printed.")],
    engines: Annotated[int, typer.Option(min=1, help="Engines of the measured kind.")] = 256,
    queries: Annotated[int | None, typer.Option(min=1, help="Training queries. Default: the configuration's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Work out what synthesis takes on many engines: hours, scorers, disk."""
    from jobs import synthesis_plan as job
    from r4t.config import load_config
    from r4t.lineage import to_json

    found = job.plan(load_config(config), measured, engines, queries)
    typer.echo(to_json(found) if as_json else job.show(found))
