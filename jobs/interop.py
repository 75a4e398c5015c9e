"""Commands for teams that train with another trainer. `register` adds them to `r4t`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import RunFolder


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command("serve-reward")(serve_reward)
    app.command("export-prompts")(export_prompts)
    app.command("import-policy")(import_policy)


def serve_reward(
    source: Annotated[
        Path, typer.Argument(metavar="CONFIG|RUN", help="Whose objective and prepared dataset to serve.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 5000,
    run_dir: Annotated[Path | None, typer.Option(help="Of a CONFIG's run. Default: runs/<its name>.")] = None,
) -> None:
    """Serve the training reward over HTTP, in OpenRLHF's format. R4T_REWARD_KEY, where set, is the key it asks for."""
    from jobs import serve_reward as job

    job.main(source, run_dir, host, port)


def export_prompts(
    run: RunFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write: .jsonl or .parquet.")],
    split: Annotated[str, typer.Option(help="train, valid or test.")] = "train",
    model: Annotated[
        Path | None, typer.Option(help="Whose tokenizer and chat template to use. Default: the run's own policy.")
    ] = None,
) -> None:
    """Write a run's queries as the prompt dataset of OpenRLHF or TRL, labelled for its reward."""
    from jobs import export_prompts as job

    job.main(run, file, split, model)


def import_policy(
    run: RunFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The trained policy, in Hugging Face format.")],
    start: Annotated[
        Path | None, typer.Option(help="The policy that training began with. Default: the run's warm start or model.")
    ] = None,
    trainer: Annotated[str, typer.Option(help="What trained it, for the record.")] = "openrlhf",
) -> None:
    """Take a policy that another trainer trained as the run's, so that `r4t run` goes on from it."""
    from jobs import import_policy as job

    job.main(run, folder, start, trainer)
