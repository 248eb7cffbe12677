"""`manage.py prepare_demo`: people, a project and a job that fills it; run again, it changes nothing."""

import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from annotation.models import JobKind, Project, Role, User
from annotation.services.jobs import create_job
from annotation.services.projects import create_project, create_taxonomy, set_member
from annotation.services.slides import SlideFacts, queue_folder
from annotation.slides.image import READABLE_SUFFIXES
from annotation.taxonomies import HCT

PEOPLE = {"lead": Role.LEAD, "reviewer": Role.REVIEWER, "annotator1": Role.ANNOTATOR, "annotator2": Role.ANNOTATOR}


class Command(BaseCommand):
    help = "Make the demo's users and project, and queue what fills it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--slides", type=Path, help="Import this folder's slides and wait for labels.")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        folder: Path | None = options["slides"]
        if folder is not None and not folder.is_dir():
            raise CommandError(f"{folder}: no such folder.")
        self._make_people()
        name = f"Slides of {folder.resolve().name}"[:100] if folder else "Demo"
        if Project.objects.filter(name=name).exists():
            self.stdout.write(f"The project {name} is there already: going on with it.")
            return
        lead = User.objects.get(username="lead")
        project = create_project(name=name, taxonomy=create_taxonomy(spec=HCT), lead=lead)
        for user_name, role in PEOPLE.items():
            set_member(project=project, member=User.objects.get(username=user_name), role=role, user=lead)
        if folder is None:
            create_job(project=project, kind=JobKind.DEMO, subject="four drawn slides, two rounds", created_by=lead)
            return
        slides = [path for path in folder.iterdir() if path.suffix.lower() in READABLE_SUFFIXES]
        if not slides:
            raise CommandError(f"{folder}: no slide or image in this folder ({', '.join(sorted(READABLE_SUFFIXES))}).")
        jobs = queue_folder(project=project, paths=slides, facts=SlideFacts(patient=""), user=lead)
        self.stdout.write(f"Importing {len(jobs)} slides from {folder}.")

    def _make_people(self) -> None:
        if User.objects.filter(username="lead").exists():
            self.stdout.write("The users are there already (manage.py changepassword NAME sets a new password).")
            return
        self.stdout.write("\nSign in as one of these; the passwords are shown only now:\n")
        for user_name, role in PEOPLE.items():
            password = secrets.token_urlsafe(12)
            User.objects.create_user(user_name, password=password, is_staff=role == Role.LEAD)
            self.stdout.write(f"  {user_name:<12} {password}   ({role.label})")
        self.stdout.write("")
