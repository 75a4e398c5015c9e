"""`r4t push` and `r4t pull`: a run directory and its mirror in an object store. `register` adds them to `r4t`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import RunFolder

Url = Annotated[str, typer.Argument(metavar="URL", help="s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, or a path.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (push, pull):
        app.command()(command)


def push(
    run: RunFolder,
    url: Url,
    replace: Annotated[bool, typer.Option("--replace", help="Also over another state of a run.")] = False,
) -> None:
    """Store a run: send what the store lacks. What is interrupted leaves the former state, and goes on next time."""
    from jobs.pipeline import locked
    from jobs.transfers import transfer
    from r4t.errors import UserError
    from r4t.storage.push import Claim, check_same_run
    from r4t.storage.push import push as send
    from r4t.storage.snapshot import Hashes
    from r4t.storage.store import Store

    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run directory (it has no config.yaml): give the folder that `r4t run` made")
    store, hashes = Store(url), Hashes()
    with locked(run), transfer(f"to {store.url}") as bar:
        if not replace:
            check_same_run(run, store, hashes)
        done = send(run, store, Claim(), hashes, begin=bar.begin, moved=bar.moved)
    typer.echo(f"{store.url}: {done.files} files, {done.uploaded} of them sent now ({done.bytes / 2**20:,.1f} MiB)")


def pull(
    url: Url,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A new directory, or one that was pulled before.")],
) -> None:
    """Fetch a run from its store: every file is held against its hash before anything is put in place."""
    from jobs.pipeline import locked
    from jobs.transfers import transfer
    from r4t.errors import UserError
    from r4t.storage.index import INDEX
    from r4t.storage.pull import pull as fetch
    from r4t.storage.push import read_index
    from r4t.storage.store import Store

    store = Store(url)
    if read_index(store) is None:
        raise UserError(f"{store.url} holds no run (it has no {INDEX}): give the address that was pushed to")
    with locked(run), transfer(f"from {store.url}") as bar:
        index = fetch(run, store, begin=bar.begin, moved=bar.moved)
    if index is None:
        typer.echo(f"{run}: nothing to fetch, {store.url} has nothing newer")
    else:
        typer.echo(f"{run}: {len(index.files)} files as in {store.url}")
