"""The endpoint over exported folders, which watches them for new versions: what every way of serving runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from starlette.applications import Starlette

from r4t.config import Serve
from r4t.evaluation.run_page import run_page
from r4t.http import own_digest
from r4t.retriever.engines import EngineName
from r4t.serving.app import serving_app
from r4t.serving.measures import Measures
from r4t.serving.messages import KEY_VARIABLE
from r4t.serving.methods import Writer
from r4t.serving.service import Service
from r4t.serving.version import Version, open_version
from r4t.serving.watch import Watcher


def watched_app(
    folders: Sequence[Path],
    settings: Serve,
    engine: EngineName,
    source: Path,
    writer: Writer | None = None,
    digest: str | None = None,
) -> tuple[Starlette, Service]:
    """The application and its service. source: the folder that the page of the run is about; writer: the language model
    of r4t_folm, the same for every version; digest: of the key, in place of the one in `KEY_VARIABLE`. Raises UserError
    for folders that cannot be served."""

    def opened() -> Version:
        return open_version(folders, engine, settings.threads, writer, settings.encoder_path)

    service = Service(opened(), settings)
    measures = Measures(service)
    watcher = Watcher(folders, opened, service, settings.watch, measures.reload)
    page = partial(run_page, source)
    digest = digest or own_digest(KEY_VARIABLE)
    app = serving_app(service, settings, digest=digest, measures=measures, watcher=watcher, run_page=page)
    return app, service
