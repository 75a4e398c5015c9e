"""`r4t catalog`: look at a catalogue before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from r4t.catalog.source import Catalog
    from r4t.config import Config
    from r4t.types import Floats

app = typer.Typer(help="Look at a catalogue before anything is trained on it.", no_args_is_help=True)


@app.command()
def inspect(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file, as for `r4t run`.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="The map; default: NAME.png.")] = None,
    colour: Annotated[str, typer.Option(metavar="COLUMN", help="The item column that colours the map.")] = "category",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print counts, text lengths, duplicates and neighbours of the items, and draw a map of them."""
    from r4t.catalog.item_map import draw_map
    from r4t.catalog.load import load_catalog
    from r4t.catalog.overview import overview
    from r4t.config import load_config
    from r4t.lineage import to_json
    from r4t.storage.sources import fetch_sources

    settings = load_config(config, set_)
    local = settings.model_copy(update={"data": fetch_sources(settings.data).data})
    catalog = load_catalog(local)
    vectors = _vectors(settings, catalog)
    picture = out or Path(f"{settings.name}.png")
    values = [item.extra.get(colour) for item in catalog.items]
    draw_map(picture, settings.name, vectors, [None if value is None else str(value) for value in values])
    found = {"schema": 1, "name": settings.name, "task": settings.task, **overview(catalog, vectors), "map": picture}
    typer.echo(to_json(found) if as_json else show(found))


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The run that the retriever was trained in.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A run whose stage prepare has seen the new catalogue.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a changed catalogue does to a trained retriever: items that came and went, targets that moved."""
    from jobs.catalog_diff import diff as compare
    from r4t.lineage import is_finished, to_json

    sets = old / "sets" if is_finished(old / "sets") else None
    found = compare(old / "prepare", new / "prepare", sets)
    if as_json:
        typer.echo(to_json({"schema": 1} | found))
        return
    what = "training targets" if sets else "queries (OLD has no training sets)"
    typer.echo(
        f"items: {found['added']:,} added, {found['removed']:,} removed, {found['kept']:,} kept\n"
        f"{found['moved']:,} of {found['targets']:,} {what} have another nearest item ({found['moved_share']:.1%})"
    )


def _vectors(settings: Config, catalog: Catalog) -> Floats:
    """[N, d] the items in the configured space, as the prepare stage would put them there."""
    from jobs.encoding import full_item_vectors
    from r4t.catalog.encoders import base_encoder
    from r4t.catalog.encoders.reduction import ReducedEncoder, fit_projection

    encoder = base_encoder(settings.encoder)

    def encode(_: str, contents: list[str], images: bool) -> Floats:
        return encoder.encode_images(list(map(Path, contents))) if images else encoder.encode(contents)

    vectors = full_item_vectors(settings, catalog, encoder.dim, encode)
    if settings.encoder.reduce != "pca":
        return vectors
    return ReducedEncoder(encoder, fit_projection(vectors, settings.encoder.dim)).project(vectors)


def show(found: dict[str, Any]) -> str:
    """The same as a few lines of text."""
    near, queries, references = found["neighbours"], found["queries"], found["references_per_query"]
    everything = near["sampled_items"] == found["items"]
    sample = "all items" if everything else f"a sample of {near['sampled_items']:,} items against all"
    lines = [
        f"{found['name']}: {found['items']:,} items with vectors of width {found['width']}, task {found['task']}",
        f"  repeated texts   {found['repeated_texts']:,} items have the text of another before them",
        f"  words per text   {_spread(found['words_per_text'], '.0f')}",
        f"  near-duplicates  {near['near_duplicates']:.1%} have another item at a cosine above .95,"
        f" {near['same_vector']:.1%} one with the same vector ({sample})",
        f"  distance (1 - cosine) to the nearest other item   {_spread(near['distance'], '.3f')}",
        "  queries          " + ", ".join(f"{count:,} {split}" for split, count in queries.items()),
    ]
    if references:
        lines.append(f"  items per query  {_spread(references, '.0f')}")
    lines += [f"  left out         {count:,} {reason}" for reason, count in found["dropped"].items()]
    return "\n".join([*lines, f"  map              {found['map']}"])


def _spread(quantiles: dict[str, float], form: str) -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in quantiles.items())
