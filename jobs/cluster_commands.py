"""Commands around clusters: what a run takes, what it looks like on Kubernetes, what is wrong with a machine.

`register` adds them to `r4t`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.options import Address, AsJson, Overrides


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (manifest, plan, bench, doctor):
        app.command()(command)


def manifest(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, as for `r4t run`.")],
    gpus: Annotated[int, typer.Option(help="GPUs of one node.", min=0)] = 8,
    cpus: Annotated[float, typer.Option(help="CPUs that one node gives to a pod.", min=1)] = 48,
    memory: Annotated[float, typer.Option(help="GiB that one node gives to a pod.", min=2)] = 384,
    name: Annotated[str | None, typer.Option(help="Of the RayJob. Default: the configuration's.")] = None,
    run_dir: Annotated[
        str | None, typer.Option(help="As the pods see it. Default: /runs/<name of the config>.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="With a tag or digest. Default: r4t:<version>-cpu, -gpu or -openrlhf.")
    ] = None,
    stage: Annotated[str, typer.Option(help="As for `r4t run`.")] = "all",
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace.")] = "r4t",
    queue: Annotated[str, typer.Option(help="Kueue's LocalQueue; means nothing where Kueue does not run.")] = "r4t",
    items: Annotated[int, typer.Option(help="Items of the catalogue, which decide memory.", min=1)] = 100_000,
    parameters: Annotated[
        float | None, typer.Option(help="Of policy.model, where it is not on this machine: 1.7e9.", min=1)
    ] = None,
    redis: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Redis in which Ray's control plane survives its restart.")
    ] = None,
    redis_secret: Annotated[str, typer.Option(help="The Secret that holds its `password`.")] = "r4t-redis",  # noqa: S107
    storage: Annotated[
        str | None, typer.Option(help="s3://BUCKET/FOLDER or gs://...: keeps the run; one pod, and no claim.")
    ] = None,
    disk: Annotated[int, typer.Option(help="GiB of that pod's own disk.", min=1)] = 100,
    storage_secret: Annotated[
        str, typer.Option(help="The Secret with the store's credentials; empty: the service account's role.")
    ] = "r4t-storage",  # noqa: S107
    storage_endpoint: Annotated[
        str | None, typer.Option(help="http(s)://HOST[:PORT] of an S3 store that is not Amazon's.")
    ] = None,
    set_: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Write there instead of printing.")] = None,
) -> None:
    """Write the Kubernetes RayJob that fits a configuration: `r4t manifest CONFIG | kubectl apply -f -`."""
    from cluster.pods import Node
    from jobs import manifest as job
    from r4t.config import load_config

    text = job.write(
        load_config(config, set_),
        name=name,
        run_dir=run_dir,
        image=image,
        node=Node(cpus=cpus, gpus=gpus, memory_gib=memory),
        stage=stage,
        namespace=namespace,
        queue=queue,
        items=items,
        parameters=parameters,
        redis=redis,
        redis_secret=redis_secret,
        storage=storage,
        disk=disk,
        storage_secret=storage_secret,
        storage_endpoint=storage_endpoint,
    )
    job.save(text, out) if out else typer.echo(text, nl=False)


def plan(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, as for `r4t run`.")],
    rates: Annotated[
        Path | None, typer.Option(help="A finished run or a JSON file. Default: benchmarks/rates.json.")
    ] = None,
    items: Annotated[int | None, typer.Option(help="Items of your catalogue.", min=1)] = None,
    queries: Annotated[int | None, typer.Option(help="Queries of all splits.", min=10)] = None,
    parameters: Annotated[
        float | None, typer.Option(help="Of policy.model, where it is not on this machine: 1.7e9.", min=1)
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs that there are: refuse what needs more.", min=1)] = None,
    gpu_memory: Annotated[float, typer.Option(help="GiB of one GPU.", min=1)] = 80.0,
    memory: Annotated[float | None, typer.Option(help="GiB of the machine, for cluster.device cpu.", min=1)] = None,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Predict time, memory, storage and bottleneck of every stage, before anything is paid for."""
    from rich.console import Console

    from jobs import plan as job
    from r4t.config import load_config
    from r4t.lineage import to_json

    found = job.describe(
        load_config(config, set_),
        rates=rates,
        items=items,
        queries=queries,
        parameters=parameters,
        gpus=gpus,
        gpu_memory=gpu_memory,
        memory=memory,
    )
    typer.echo(to_json(found)) if as_json else job.show(Console(), found)


def bench(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, as for `r4t run`.")],
    out: Annotated[Path, typer.Option(help="Where the rates go, for `r4t plan CONFIG --rates FILE`.")] = Path(
        "rates.json"
    ),
    run_dir: Annotated[Path | None, typer.Option(help="Of the short run. Default: runs/bench-<name>.")] = None,
    set_: Overrides = None,
    address: Address = None,
) -> None:
    """Measure how fast every kind of work goes on these machines: a short run of the configuration."""
    from jobs import bench as job
    from r4t.config import load_config

    settings = load_config(config, set_)
    typer.echo(job.show(job.measure(settings, run_dir or Path("runs") / f"bench-{settings.name}", out, address), out))


def doctor(
    storage: Annotated[Path, typer.Option(help="Where runs will be written.")] = Path("runs"),
    address: Annotated[str | None, typer.Option(help="A Ray cluster (auto, HOST:PORT): examine its nodes too.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Import the engines without having them work.")] = False,
    as_json: AsJson = False,
) -> None:
    """Examine this machine or cluster: engines, versions, storage, ports, memory; each failure says what to do."""
    from jobs.doctor import examine, show
    from r4t.lineage import to_json

    found = examine(storage, address, quick)
    typer.echo(to_json(found) if as_json else show(found))
    if not found["healthy"]:
        raise typer.Exit(1)
