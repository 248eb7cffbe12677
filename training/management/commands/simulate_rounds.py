"""`manage.py simulate_rounds`: what the loop would buy, with simulated experts on cells that are known."""

import json
import os
import signal
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from threading import Event
from typing import Any

from django.conf import settings as django_settings
from django.core.management.base import BaseCommand, CommandError

from annotation.models import Project
from annotation.taxonomies import PRESETS
from training.services.simulating import project_source, run_task, slides_source
from training.simulation.expert import Errors
from training.simulation.operators import Operators
from training.simulation.plan import ARMS
from training.simulation.report import Varied, as_markdown, tables_of, write_report
from training.simulation.settings import QUICK, Settings
from training.simulation.tree import VARIED_ARMS, SimulationError, Source, Stopped, simulate, simulate_variations

TIMES = [one.name for one in fields(Operators)]
SHARES = [one.name for one in fields(Errors)]
MOST_JOBS = 4  # a round takes about 1.5 GB of memory
PLAIN = ("arms", "seeds", "rounds", "batch", "kind", "model", "image_size", "finder_passes", "classifier_passes")


class Command(BaseCommand):
    help = "Simulate rounds of annotation and training with experts who answer from known truth. Stopped, it goes on."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--task", type=Path, help=SUPPRESS)  # what the simulation asks of its own processes
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--slides", type=Path, help="slides with truth files beside them, a patient each")
        source.add_argument("--project", type=int, help="a project's number: its tiles with truth")
        parser.add_argument("--test", nargs="+", default=[], metavar="PATIENT", help="of --slides: the locked test set")
        parser.add_argument("--taxonomy", choices=sorted(PRESETS), default="blood-and-marrow", help="of --slides")
        parser.add_argument(
            "--folder", type=Path, help="where rounds and report are kept (default: in the data folder)"
        )
        parser.add_argument("--report", type=Path, help="where the report is written (default: in that folder)")
        parser.add_argument("--quick", action="store_true", help="a few minutes: shows that it runs, and nothing else")
        words = "; ".join(f"{arm.name}: {arm.words}" for arm in ARMS.values())
        parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), help=words)
        for name in ("seeds", "rounds", "batch", "image-size", "finder-passes", "classifier-passes"):
            parser.add_argument(f"--{name}", type=int)
        parser.add_argument("--kind", choices=["one-stage", "two-stage"])
        parser.add_argument("--model")
        parser.add_argument("--from-scratch", action="store_true", help="every training, not only the first")
        words = (
            "rounds that run beside each other, each on the cores that the others leave (default: one for each core)"
        )
        parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, MOST_JOBS), help=words)
        words = f"then the first seed of arms {' and '.join(VARIED_ARMS)} again, each error half and twice as frequent"
        parser.add_argument("--vary-errors", action="store_true", help=words)
        for name in TIMES:
            parser.add_argument(f"--{name}", type=float, metavar="S", help="seconds of this operator")
        for name in SHARES:
            parser.add_argument(f"--{name}", type=float, metavar="SHARE", help="0 to 1: how often the expert errs so")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["task"]:
            run_task(options["task"])
            return
        try:
            settings = settings_of(options)
            source = self._source(options)
            folder: Path = options["folder"] or Path(django_settings.DATA_DIR) / "simulations" / source.kind
            varied: Varied = {}
            jobs = options["jobs"]
            if jobs < 1:
                raise SimulationError("Jobs: at least 1.")
            with _stop_asked() as stop:
                curves = simulate(settings, source, folder, on_progress=self._say, should_stop=stop, jobs=jobs)
                if options["vary_errors"]:
                    varied = simulate_variations(settings, folder, on_progress=self._say, should_stop=stop, jobs=jobs)
        except Stopped as error:
            raise CommandError("Stopped. The same command goes on with the round that was not done.") from error
        except (SimulationError, ValueError) as error:
            raise CommandError(str(error)) from error
        facts = json.loads((folder / "source" / "known.json").read_text(encoding="utf-8"))
        report: Path = options["report"] or folder / "report"
        cache = Path(django_settings.DATA_DIR) / "cache" / "matplotlib"
        result = write_report(curves, settings, facts, report, varied=varied, matplotlib=cache)
        self.stdout.write(as_markdown(tables_of(curves, settings, facts, varied)))
        self.stdout.write(f"The report is in {report}.")
        self.stdout.write(json.dumps(result))

    def _source(self, options: dict[str, Any]) -> Source:
        if options["slides"]:
            return slides_source(options["slides"], test=options["test"], taxonomy=options["taxonomy"])
        if options["project"] is None:
            raise SimulationError("Say where the cells come from: --slides FOLDER or --project NUMBER.")
        project = Project.objects.select_related("taxonomy").filter(pk=options["project"]).first()
        if project is None:
            raise SimulationError(f"There is no project {options['project']}.")
        return project_source(project)

    def _say(self, share: float, text: str, seconds_left: float | None) -> None:
        left = "" if seconds_left is None else f"; {seconds_left / 60:.0f} min left"
        self.stdout.write(f"{share:4.0%}  {text}{left}")
        self.stdout.flush()


@contextmanager
def _stop_asked() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM has come: the round under way then ends with its processes, to begin anew later."""
    stop = Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop.is_set
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def settings_of(options: dict[str, Any]) -> Settings:
    """Raises ValueError."""
    base = QUICK if options["quick"] else Settings()
    given = {name: options[name] for name in PLAIN if options[name] is not None}
    times = {name: options[name] for name in TIMES if options[name] is not None}
    shares = {name: options[name] for name in SHARES if options[name] is not None}
    return replace(
        base,
        **given,
        from_previous=base.from_previous and not options["from_scratch"],
        operators=replace(base.operators, **times),
        errors=replace(base.errors, **shares),
    )
