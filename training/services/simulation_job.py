"""The job of a simulation: it runs the rounds that are missing, then stores the report and forgets the rounds."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from annotation.models import Job
from annotation.services.jobs import WAIT_SECONDS, JobError, RunningJob
from annotation.services.storage import cache_dir, store, work_dir
from annotation.slides.reader import SlideError
from training.services.simulating import project_source
from training.services.simulations import settings_of, work_name
from training.simulation.report import tables_of, write_report
from training.simulation.results import Curves, hours_share
from training.simulation.settings import Settings
from training.simulation.tree import SimulationError, simulate


def run_simulation(running: RunningJob) -> dict[str, Any]:
    """The job. Raises JobError with a text for the user, JobCancelled."""
    job = running.job
    with work_dir(work_name(job), resumed=True) as folder:
        if not job.result:  # else an earlier attempt was killed when all was stored
            curves = _simulate(running, settings_of(job), folder)
            facts = json.loads((folder / "source" / "known.json").read_text(encoding="utf-8"))
            running.report(1.0, "writing the report", at_once=True)
            job.result = keep_report(job, curves, facts, folder / "report")
            running.check()
            job.save(update_fields=["result"])
    return dict(job.result)


def _simulate(running: RunningJob, settings: Settings, folder: Path) -> Curves:
    def report(share: float, text: str, seconds_left: float | None) -> None:
        running.report(share, text, seconds_left=seconds_left, at_once=True)

    def should_stop() -> bool:
        running.check()  # which raises what ends the job
        return False

    @contextmanager
    def turn() -> Iterator[None]:
        with running.alone("detector"):
            yield
        time.sleep(2 * WAIT_SECONDS)  # whoever waits for the processor looks once in so long

    try:
        source = project_source(running.job.project)
        return simulate(settings, source, folder, on_progress=report, should_stop=should_stop, turn=turn)
    except (SimulationError, SlideError) as error:
        raise JobError(str(error)) from error


def keep_report(job: Job, curves: Curves, facts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write the report into the folder, then into storage; returns what the job's row keeps of it.

    files: names in storage, by file name. tables: title and rows, in order: the database may sort the keys of objects.
    shares: of hours, by arm, as in result.json.
    """
    settings = settings_of(job)
    result = write_report(curves, settings, facts, folder, varied={}, matplotlib=cache_dir() / "matplotlib")
    names = sorted(path.name for path in folder.iterdir())
    return {
        "files": {name: store(folder / name, f"simulations/{job.project_id}/{job.pk}/{name}") for name in names},
        "result": result,
        "shares": {name: hours_share(curves, name, settings.operators).to_json() for name in curves if name != "a"},
        "tables": [[title, rows] for title, rows in tables_of(curves, settings, facts, {}).items()],
        "message": f"mAP@0.5 up to {max(one['mean'] for one in result['best_map50'].values()):.3f}",
    }
