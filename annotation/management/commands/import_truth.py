"""`manage.py import_truth`: what is known of slides, entered as import annotations."""

import random
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.models import Project, Slide, TaskState, Tile
from annotation.services.truth import Truth, TruthError, check_classes, countable_tiles, enter_truth, read_truth


class Command(BaseCommand):
    help = "Enter truth files (JSON beside the slides) on the tiles that they wholly describe."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, help="Truth files; each names its slide.")
        parser.add_argument("--project", required=True)
        parser.add_argument("--tiles", type=int, help="At most so many tiles, spread over the slides by chance.")
        parser.add_argument("--batch", help="Only tiles that wait in this batch.")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(name=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        try:
            found = self._find(project, options["files"], options["batch"])
            chosen = _choose(found, options["tiles"], options["seed"])
            boxes = tiles = 0
            for truth, source, some in chosen:
                boxes += enter_truth(truth=truth, tiles=some, source=source)
                tiles += len(some)
        except TruthError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"entered {boxes} boxes on {tiles} tiles of {len(chosen)} slides")

    def _find(self, project: Project, files: list[Path], batch: str | None) -> list[tuple[Truth, str, list[Tile]]]:
        """Every file is read and checked before the first tile is written."""
        found = []
        for path in files:
            truth = read_truth(path)
            check_classes(truth, project, path.name)
            slide = Slide.objects.filter(project=project, name=truth.slide).first()
            if slide is None:
                raise TruthError(f"{path.name}: its slide {truth.slide} is not in {project}.")
            tiles = countable_tiles(truth, slide)
            if batch is not None:
                tasks = project.batches.filter(name=batch, tasks__state=TaskState.OPEN)
                waiting = set(tasks.values_list("tasks__tile", flat=True))
                tiles = [tile for tile in tiles if tile.pk in waiting]
            found.append((truth, path.name, tiles))
        return found


def _choose(
    found: list[tuple[Truth, str, list[Tile]]], most: int | None, seed: int
) -> list[tuple[Truth, str, list[Tile]]]:
    every = sorted(tile.pk for _, _, tiles in found for tile in tiles)
    if most is None or most >= len(every):
        return found
    kept = set(random.Random(seed).sample(every, most))
    return [(truth, source, [tile for tile in tiles if tile.pk in kept]) for truth, source, tiles in found]
