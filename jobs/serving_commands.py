"""Commands around the endpoint. `register` adds them to `r4t`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command("serve")(serve)


def serve(
    source: Annotated[Path, typer.Argument(metavar="RUN|DIR", help="A run, or a folder that `r4t export` wrote.")],
    lite: Annotated[bool, typer.Option("--lite", help="One process on ONNX Runtime, without torch and Ray.")] = False,
    folm: Annotated[bool, typer.Option("--folm", help="Load the run's language model: method r4t_folm.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one (--lite).", min=0, max=65535)] = 8000,
    address: Annotated[str | None, typer.Option(help="Ray cluster, as in `r4t run`.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="serve.B=C", help="Override a key; may be repeated.")
    ] = None,
) -> None:
    """Serve a retriever over HTTP. R4T_SERVE_KEY, where set, is the key it asks for."""
    from jobs import serve as job

    if folm:
        set_ = [*(set_ or []), "serve.folm=true"]
    if lite:
        job.serve_lite(source, host, port, set_)
    else:
        job.serve_on_ray(source, host, port, set_, address)
