"""The command line. Every command imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import catalog, cluster_commands, interop, mirror_commands, serving_commands, sets_commands
from jobs.leaving import leaving_at_once
from jobs.options import Address, AsJson, Overrides, RunFolder
from jobs.sigterm import stopping_cleanly
from r4t.errors import UserError, printable

if TYPE_CHECKING:
    from jobs.run import Run
    from r4t.config import Config

USER_ERROR = 2

app = typer.Typer(
    name="r4t",
    help="Retrieve-for-Train: reinforcement learning teaches set-valued retrieval, a small diffusion model serves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(catalog.app, name="catalog")
app.add_typer(sets_commands.app, name="sets")
interop.register(app)
serving_commands.register(app)
cluster_commands.register(app)
mirror_commands.register(app)

objective = typer.Typer(help="What a good set is, and why.", no_args_is_help=True)
app.add_typer(objective, name="objective")

RunDir = Annotated[Path | None, typer.Option(help="Default: runs/<name of the config>.")]
MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="r4t_distilled (the default, where the run has a student), r4t_diffusion (else), r4t_folm, best_of_n,"
        " zero_shot, no_fanout, mmr, ...",
    ),
]


@app.command()
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, e.g. configs/quickstart.yaml.")],
    stage: Annotated[
        str, typer.Option(help="prepare, folm, sets, retriever, distill, evaluate, report or all.")
    ] = "all",
    run_dir: RunDir = None,
    set_: Overrides = None,
    address: Address = None,
) -> None:
    """Run the pipeline from raw items to a report. A finished run does nothing; an interrupted one resumes."""
    from r4t.config import load_config

    _run(load_config(config, set_), run_dir, stage, address)


@app.command()
def quickstart(
    config: Annotated[str, typer.Option(help="Which of the configurations that ship with R4T.")] = "quickstart",
    run_dir: RunDir = None,
    set_: Overrides = None,
    address: Address = None,
    list_: Annotated[bool, typer.Option("--list", help="Name them and what each is for, and run nothing.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Print the file, to copy and change, and run nothing.")] = False,
) -> None:
    """Run a configuration that ships with R4T; needs no checkout, and by default no data of yours either."""
    from jobs import shipped_configs as shipped
    from r4t.config import load_config

    if list_:
        typer.echo(shipped.listing())
    elif show:
        typer.echo(shipped.path_of(config).read_text(), nl=False)
    else:
        _run(load_config(shipped.runnable(config), set_), run_dir, "all", address)


@app.command()
def retrieve(
    run: RunFolder,
    query: Annotated[str, typer.Argument(help='What to look for, e.g. "light summer lunch".')],
    k: Annotated[int | None, typer.Option("-k", help="Items, at most the run's fanout.k.")] = None,
    method: MethodName = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the set of items that a finished run retrieves for a query."""
    from rich.console import Console

    from jobs import retrieve as job
    from jobs.policies import product
    from r4t.lineage import to_json

    method = method or product(run)
    found = job.retrieve(run, query, k, method, seed)
    if as_json:
        typer.echo(to_json(job.as_json(query, method, found)))
    else:
        job.show(Console(), query, method, found)


@app.command()
def export(
    run: RunFolder,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Where to write it: a folder, or a store's address.")],
    part: Annotated[
        str | None, typer.Option(help="Which retriever: a folder of the run. Default: distill where there is one.")
    ] = None,
    items: Annotated[bool, typer.Option(help="With the items and their vectors.")] = True,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also as a graph for servers without torch.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also with weights in 8 bits; implies --onnx.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run's retriever as a folder that serves by itself: network, encoder, items, lineage, model card."""
    from jobs import export as job
    from r4t.lineage import to_json
    from r4t.storage.urls import is_url

    write = job.export_to_store if is_url(folder) else job.export
    made = write(run, folder, part=part, items=items, onnx=onnx, int8=int8)
    typer.echo(to_json(made) if as_json else f"{made['folder']}: {', '.join(made['files'])}")


@objective.command()
def explain(
    run: RunFolder,
    query: Annotated[str, typer.Argument(help='What to look for, e.g. "light summer lunch".')],
    method: MethodName = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show what each term of the objective says of a retrieved set, and which items carry it."""
    from rich.console import Console

    from jobs import explain as job
    from jobs.policies import product
    from r4t.lineage import to_json

    explained = job.explain(run, query, method or product(run), seed)
    typer.echo(to_json(job.as_json(explained))) if as_json else job.show(Console(), explained)


@app.command()
def evaluate(
    run: RunFolder,
    methods: Annotated[str | None, typer.Option(help="Names with commas between; default: all of the run.")] = None,
    split: Annotated[str | None, typer.Option(help="valid or test; default: the config's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key of evaluate; may be repeated.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster, as in `r4t run`.")] = None,
) -> None:
    """Evaluate a run again, and remake its report."""
    from cluster.session import session
    from jobs import evaluate as job
    from jobs.pipeline import locked

    for override in set_ or []:
        if not override.startswith("evaluate."):
            raise UserError(f"--set {override!r}: an evaluation changes keys of 'evaluate' alone; train a run anew")
    settings = _config_of(run, [*(set_ or []), *([f"evaluate.split={split}"] if split else [])])
    names = [name.strip() for name in methods.split(",")] if methods else None
    with locked(run), session(settings, address), _opened(run, settings) as opened:
        job.main(settings, opened, methods=names, again=True)
        _report(settings, opened)


@app.command()
def judge(
    run: RunFolder,
    url: Annotated[str, typer.Option(help="Of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1.")],
    model: Annotated[str, typer.Option(help="As the server calls it.")],
    methods: Annotated[str | None, typer.Option(help="Names with commas between; default: all evaluated.")] = None,
    queries: Annotated[int, typer.Option(help="At most, the same ones for every method.", min=2)] = 100,
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the key.")] = "OPENAI_API_KEY",
    temperature: Annotated[float, typer.Option(help="Of the judge; above 0 a retry can differ.", min=0)] = 0.2,
    max_tokens: Annotated[int, typer.Option(help="Of an answer.", min=1)] = 4096,
    concurrency: Annotated[int, typer.Option(help="Requests at a time.", min=1, max=64)] = 4,
    schema: Annotated[bool, typer.Option(help="Ask the server to hold answers to a JSON schema.")] = True,
) -> None:
    """Have a language model judge an evaluated run by the paper's rubrics, blind to the method."""
    from jobs import judge as job
    from jobs.pipeline import locked

    server = job.endpoint(
        url=url,
        model=model,
        api_key_env=key_env,
        temperature=temperature,
        max_tokens=max_tokens,
        concurrency=concurrency,
    )
    settings = _config_of(run, [])
    names = [name.strip() for name in methods.split(",")] if methods else None
    with locked(run), _opened(run, settings) as opened:
        job.main(settings, opened, server, names, queries, schema)
        _report(settings, opened)


@app.command()
def report(run: RunFolder) -> None:
    """Make the report of an evaluated run again."""
    from jobs.pipeline import locked

    settings = _config_of(run, [])
    with locked(run), _opened(run, settings) as opened:
        _report(settings, opened)


@app.command()
def control(
    run: RunFolder,
    steps: Annotated[int, typer.Option(help="Rollout batches per variant.", min=1)] = 60,
    address: Annotated[str | None, typer.Option(help="Ray cluster, as in `r4t run`.")] = None,
) -> None:
    """Negative control: train under fewer reward terms and show in the report which of them prevent collapse."""
    from cluster.session import session
    from jobs import control as job
    from jobs.pipeline import locked

    settings = _config_of(run, [])
    with locked(run), session(settings, address), _opened(run, settings) as opened:
        job.main(settings, opened, steps)
        _report(settings, opened)


@app.command()
def status(run: RunFolder, as_json: AsJson = False) -> None:
    """Say which stages of a run are finished and how far the running one is."""
    from jobs.status import describe, show
    from r4t.lineage import to_json

    _config_of(run, [])
    found = describe(run)
    typer.echo(to_json(found) if as_json else show(found))


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A run directory or a stage's folder.")],
) -> None:
    """Check every file of a run against its recorded hash, and every stage against the inputs it was made from."""
    from r4t.verify import verify as problems_of

    problems = problems_of(path)
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{path}: every file and input is as recorded")


def main() -> None:
    """The process `r4t`."""
    with leaving_at_once():
        entry()


def entry() -> None:
    """Runs a command. A user's mistake is one message and exit code 2; a bug keeps its traceback."""
    try:
        with stopping_cleanly():
            app()
    except UserError as error:
        cause = getattr(error, "cause", None) or error  # Ray wraps what an actor raised
        print(f"error: {printable(str(cause))}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print("stopped; the same command resumes the run", file=sys.stderr)
        sys.exit(130)


def _run(settings: Config, run_dir: Path | None, stage: str, address: str | None) -> None:
    if sys.platform != "linux":
        raise UserError(
            f"R4T runs on Linux, this is {sys.platform}: use the image (docker build --target cpu .), a virtual machine"
            " or WSL. On Linux without vLLM or AVX2, arm64 included, transformers stands in for it (rollout.engine)"
        )
    from jobs.pipeline import run_pipeline

    run_pipeline(settings, run_dir or Path("runs") / settings.name, stage, address)


def _config_of(run: Path, overrides: list[str]) -> Config:
    from r4t.config import load_config

    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run directory (it has no config.yaml): give the folder that `r4t run` made")
    return load_config(run / "config.yaml", overrides)


@contextlib.contextmanager
def _opened(run: Path, settings: Config) -> Iterator[Run]:
    from jobs.run import Run
    from r4t.verify import seal_run

    with contextlib.closing(Run(run, settings)) as opened:
        yield opened
    seal_run(run)


def _report(settings: Config, opened: Run) -> None:
    from jobs import report as job

    job.main(settings, opened, again=True)
