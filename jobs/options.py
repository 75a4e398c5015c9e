"""Arguments and options that several commands of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The directory that `r4t run` made.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key; may be repeated.")]
Address = Annotated[
    str | None,
    typer.Option(help="auto (the running Ray cluster), local, or HOST:PORT. Default: RAY_ADDRESS, else local."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
