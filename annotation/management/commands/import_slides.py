"""`manage.py import_slides`: slides and plain images from this machine's disk, with a line for each file."""

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.models import Patient, Project
from annotation.services.projects import NotAllowed, create_project, create_taxonomy, set_locked
from annotation.services.slides import SlideFacts, display_name, import_slide, patient_code_from, tile_count
from annotation.slides.image import READABLE_SUFFIXES
from annotation.slides.reader import SlideError, group_files
from annotation.taxonomies import PRESETS, TaxonomyError, read_taxonomy


class Command(BaseCommand):
    help = "Import whole-slide images and plain images: each file, or every slide and image file in a folder."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("paths", nargs="+", type=Path, help="Slide or image files, or folders that hold them.")
        parser.add_argument("--project", required=True, help="Its name; it is made if there is none.")
        parser.add_argument(
            "--taxonomy", default="hct", help=f"For a new project: {', '.join(PRESETS)} or a JSON file. Default: hct."
        )
        parser.add_argument("--patient", default="", help="Pseudonym. Default: each file's name without its suffix.")
        parser.add_argument("--site", default="")
        parser.add_argument("--preparation", default="", choices=["", "push", "crush"])
        parser.add_argument("--mpp", type=float, help="um per px, for files that do not say; an image may do without.")
        parser.add_argument("--tiling", default="paper", choices=["paper", "edge"])
        parser.add_argument("--lock", default="", help="Patients of the locked test set, separated by commas.")

    def handle(self, *args: Any, **options: Any) -> None:
        project = self._project(options["project"], options["taxonomy"])
        refused = 0
        groups = group_files(list(_slide_files(options["paths"])))
        for group in groups:
            name = display_name(group[0].name)
            facts = SlideFacts(
                patient=options["patient"] or patient_code_from(name),
                site=options["site"],
                preparation=options["preparation"],
                mpp=options["mpp"],
                tiling=options["tiling"],
            )
            started = time.monotonic()
            try:
                slide = import_slide(project=project, paths=group, name=name, facts=facts, user=None)
            except SlideError as error:
                refused += 1
                self.stderr.write(f"refused   {error}")
                continue
            seconds = time.monotonic() - started
            self.stdout.write(f"imported  {name}: patient {slide.patient}, {tile_count(slide)}, {seconds:.1f} s")
        self._lock(project, [code for code in options["lock"].split(",") if code])
        if refused:
            raise CommandError(f"{refused} of {len(groups)} slides refused.")

    def _project(self, name: str, taxonomy: str) -> Project:
        known = Project.objects.filter(name=name).first()
        if known is not None:
            return known
        try:
            spec = PRESETS[taxonomy] if taxonomy in PRESETS else read_taxonomy(Path(taxonomy))
            return create_project(name=name, taxonomy=create_taxonomy(spec=spec), lead=None)
        except TaxonomyError as error:
            raise CommandError(str(error)) from error

    def _lock(self, project: Project, codes: list[str]) -> None:
        for code in codes:
            patient = Patient.objects.filter(project=project, code=code).first()
            if patient is None:
                raise CommandError(f"There is no patient {code} in {project}.")
            try:
                set_locked(patient=patient, locked=True, user=None)
            except NotAllowed as error:
                raise CommandError(str(error)) from error


def _slide_files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.iterdir() if one.suffix.lower() in READABLE_SUFFIXES)
        elif path.exists():
            yield path
        else:
            raise CommandError(f"{path}: no such file or folder.")
