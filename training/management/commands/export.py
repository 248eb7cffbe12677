"""`manage.py export`: a part of a project in a format that others read, as a zip archive."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.models import Project
from annotation.services.events import record
from annotation.services.export_choice import ANNOTATIONS, COORDINATES, FORMATS, PARTS, ExportChoice
from annotation.services.exports import write_archive
from annotation.slides.reader import SlideError
from training.services.snapshots import facts_of_newest


class Command(BaseCommand):
    """Here and not in annotation, because the split of a tile is known to snapshots only."""

    help = "Write a part of a project as a zip archive, as the Exports page does. Options can be given several times."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="Its name.")
        parser.add_argument("format", choices=list(FORMATS))
        parser.add_argument("file", type=Path, help="The archive; one that is there is replaced.")
        parser.add_argument("--split", choices=list(PARTS), default="all")
        parser.add_argument("--round", type=int, action="append", default=[], dest="rounds")
        parser.add_argument("--patient", action="append", default=[], dest="patients", help="A pseudonym.")
        parser.add_argument("--class", action="append", default=[], dest="classes", help="A class's name.")
        parser.add_argument("--reader", action="append", default=[], dest="readers", help="Who drew the annotation.")
        parser.add_argument("--annotations", choices=list(ANNOTATIONS), default="truth")
        parser.add_argument("--coordinates", choices=list(COORDINATES), default="tile")
        parser.add_argument("--images", action="store_true", help="With the tiles' images.")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.select_related("taxonomy").filter(name=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project {options['project']}.")
        path: Path = options["file"]
        if not path.parent.is_dir():
            raise CommandError(f"{path}: there is no folder {path.parent}.")
        several = ("rounds", "patients", "classes", "readers")
        try:
            choice = ExportChoice(
                format=options["format"],
                images=options["images"],
                part=options["split"],
                annotations=options["annotations"],
                coordinates=options["coordinates"],
                **{name: tuple(options[name]) for name in several},
            )
            written = write_archive(path, project, choice, facts_of_newest(project))
        except (ValueError, SlideError, OSError) as error:
            raise CommandError(str(error)) from error
        record(project=project, user=None, verb="exported", subject=FORMATS[choice.format], tiles=written.tiles)
        self.stdout.write(f"{path}: {written.tiles} tiles, {written.boxes} boxes")
