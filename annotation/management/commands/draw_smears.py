"""Draw the demo slides: bone-marrow smears made in code, with exact boxes."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.slides.smear import draw_smear

PROCESSES = 2


class Command(BaseCommand):
    help = "Draw marrow smears D01, D02, ... with their true boxes into a folder, for the demo and for tests."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="where the slides go; made if it does not exist")
        parser.add_argument("--slides", type=int, default=3, help="how many, one patient each (default 3)")
        parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same slides (default 0)")
        parser.add_argument("--width", type=int, default=5888, help="px of 0.25 um (default 5888)")
        parser.add_argument("--height", type=int, default=5120, help="px of 0.25 um (default 5120)")

    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path = options["folder"]
        if options["slides"] < 1:
            raise CommandError("Ask for at least one slide.")
        size = {"width": options["width"], "height": options["height"]}
        patients = [f"D{number:02d}" for number in range(1, options["slides"] + 1)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Fresh interpreters: a forked copy would share this one's database connections and threads.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(PROCESSES, len(patients)), mp_context=context) as pool:
                jobs = [
                    pool.submit(draw_smear, folder, patient=name, seed=options["seed"], **size) for name in patients
                ]
                for job in as_completed(jobs):
                    self.stdout.write(f"Drew {job.result()}")
        except (OSError, ValueError) as error:
            raise CommandError(f"The smears could not be drawn into {folder}: {error}") from error
