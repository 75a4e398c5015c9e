"""Stage distill: a student of the finished retriever that draws a set in one to four network calls, guidance included.

A student of other settings replaces the first once its folder `distill/` is deleted.
"""

from __future__ import annotations

from cluster.student_learner import StudentLearner
from jobs.denoiser_training import Plan, train
from jobs.run import Run
from r4t.config import Config
from r4t.lineage import is_finished


def main(config: Config, run: Run) -> None:
    """Trains the student on the retriever's own sets, resuming at the step where it was stopped."""
    folder = run.stage_folder("distill")
    if is_finished(folder):
        run.say("distill: already finished")
        return
    inputs = {name: run.folder / name for name in ("prepare", "sets", "retriever")}
    plan = Plan(
        name="distill",
        learner=StudentLearner,
        args=tuple(inputs.values()),
        settings=config.distill,
        folder=folder,
        inputs=inputs,
    )
    train(config, run, [plan])
