"""Stage report: the run's numbers as one page."""

from __future__ import annotations

from jobs.run import Run
from r4t.config import Config
from r4t.evaluation.report import write_report
from r4t.lineage import is_finished, write_manifest
from r4t.verify import verify


def main(config: Config, run: Run, again: bool = False) -> None:
    """Writes `report/index.html`, unless the one that stands is of the same evaluation (`again` writes it anyway).

    Raises UserError when the run has not been evaluated.
    """
    folder = run.stage_folder("report")
    if is_finished(folder) and not again and not verify(folder):
        run.say("report: already finished")
        return
    page = write_report(run.folder, folder)
    write_manifest(
        page.parent,
        stage="report",
        config=config.model_dump(mode="json"),
        inputs={"evaluate": run.folder / "evaluate"} if is_finished(run.folder / "evaluate") else {},
        files=[page.name],
        metrics={},
    )
    run.say(f"report: {page}")
