"""Plain functions that make rows. Each can be called again and again; what is not said is made up."""

import hashlib
import json
from dataclasses import asdict
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from uuid import uuid4

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from annotation.models import (
    Annotation,
    Author,
    AuthorKind,
    Batch,
    BatchState,
    Box,
    Delivery,
    Job,
    JobKind,
    JobState,
    Membership,
    Patient,
    Project,
    Role,
    Scope,
    Slide,
    SlideFolder,
    Task,
    Taxonomy,
    Tile,
    Upload,
    User,
    Webhook,
    WebhookEvent,
)
from annotation.services.annotations import BoxInput, Effort, import_annotation, submit
from annotation.services.batches import create_batch, open_batch
from annotation.services.projects import create_project, create_taxonomy
from annotation.services.slides import SlideFacts
from annotation.services.storage import store
from annotation.services.tokens import make_token as make_token_of
from annotation.taxonomies import HCT, ClassSpec, TaxonomySpec
from inference.models import ModelVersion
from inference.services.model_exports import ModelExport
from inference.services.registry import make_current, register_version
from training.models import CrossValidation, Evaluation, Mode, Part, Round, RoundState
from training.services.rounds import RoundSettings
from training.services.simulation_job import keep_report
from training.services.training_settings import TrainingSettings
from training.simulation.operators import Work
from training.simulation.plan import ARMS
from training.simulation.results import Curves, Point
from training.simulation.settings import Settings as Simulated
from training.simulation.tree import write_json

_numbers = count(1)

SMALL = TaxonomySpec(
    "Three classes",
    (
        ClassSpec("NEU", "neutrophil", "#56b4e9", "1", "granulocytic", 5, in_me_numerator=True),
        ClassSpec("ERY", "erythroblast", "#cc3311", "2", "erythroid", in_me_denominator=True),
        ClassSpec("OTH", "other cell", "#444444", "o", in_ndc=False, ignored_in_training=True),
    ),
)


def make_user(name: str = "", **fields) -> User:
    return User.objects.create(username=name or f"user{next(_numbers)}", **fields)


def make_taxonomy() -> Taxonomy:
    return create_taxonomy(spec=SMALL)


def make_hct_project() -> Project:
    """A project with the taxonomy that drawn smears need."""
    return create_project(name=f"Project {next(_numbers)}", taxonomy=create_taxonomy(spec=HCT), lead=None)


def make_project(*, lead: User | None = None) -> Project:
    return create_project(name=f"Project {next(_numbers)}", taxonomy=make_taxonomy(), lead=lead)


def make_member(project: Project, role: Role = Role.ANNOTATOR, name: str = "", **fields) -> User:
    user = make_user(name, **fields)
    Membership.objects.create(project=project, user=user, role=role)
    return user


def make_token(user: User, scope: Scope = Scope.LEAD, **fields) -> str:
    """A token of the user, as the user is shown it once."""
    return make_token_of(user=user, name="a program", scope=scope, **fields)[1]


def make_patient(project: Project, code: str = "", *, locked: bool = False) -> Patient:
    return Patient.objects.create(project=project, code=code or f"P{next(_numbers):03d}", locked=locked)


def make_slide(
    project: Project, *, patient: Patient | None = None, tiles: int = 9, file: Path | None = None, **fields
) -> Slide:
    """A slide of 1536 px width with tiles edge to edge; with `file` (the `smear` fixture) its tiles really open.

    Without one its file is there, but empty.
    """
    patient = patient or make_patient(project)
    digest = hashlib.sha256(f"{project.pk} {next(_numbers)}".encode()).hexdigest()
    name = f"slides/{project.pk}/{digest}/0{file.suffix if file else '.tif'}"
    names = [store(file, name) if file else default_storage.save(name, ContentFile(b""))]
    values = {"name": f"{patient.code}.tif", "vendor": "generic-tiff", "width": 1536, "height": 1536, "mpp": 0.25}
    values |= {"tiling": "edge"}
    slide = Slide.objects.create(
        project=project,
        patient=patient,
        files=names,
        sha256=digest,
        bytes=file.stat().st_size if file else 1,
        **(values | fields),
    )
    places = [divmod(index, 3) for index in range(tiles)]
    Tile.objects.bulk_create(
        Tile(slide=slide, row=row, column=column, x=512 * column, y=512 * row, extent=512) for row, column in places
    )
    return slide


def lose_files(slide: Slide) -> Slide:
    """Somebody has deleted the slide's files from the disk."""
    for name in slide.files:
        default_storage.delete(name)
    return slide


def make_image(
    project: Project, *, patient: Patient | None = None, width: int = 90, height: int = 60, file: Path | None = None
) -> Tile:
    """The tile of a plain image, which knows no pixel size; with `file` (of that size) it really opens."""
    fields = {"vendor": "image", "tiling": "image", "mpp": None, "width": width, "height": height}
    slide = make_slide(project, patient=patient, tiles=0, file=file, **fields)
    return Tile.objects.create(slide=slide, row=0, column=0, x=0, y=0, extent=width, width=width, height=height)


def make_tile(project: Project | None = None) -> Tile:
    return make_slide(project or make_project(), tiles=1).tiles.get()


def make_batch(project: Project, tiles=None, *, state: BatchState = BatchState.OPEN, **fields) -> Batch:
    """A batch of these tiles, or of a new slide's nine."""
    tiles = list(make_slide(project).tiles.all()) if tiles is None else list(tiles)
    name = fields.pop("name", f"Batch {next(_numbers)}")
    batch = create_batch(project=project, name=name, choices=[(tile.pk, "by chance") for tile in tiles], **fields)
    if state != BatchState.DRAFT:
        open_batch(batch=batch)
    if state == BatchState.CLOSED:
        Batch.objects.filter(pk=batch.pk).update(state=state)
    batch.refresh_from_db()
    return batch


def make_task(project: Project | None = None) -> Task:
    return make_batch(project or make_project()).tasks.first()


def box_json(number: int = 0, x: float = 10, y: float = 20, width: float = 30, height: float = 40, **fields) -> dict:
    """A box as the editor sends it."""
    return {"class": number, "x": x, "y": y, "width": width, "height": height} | fields


def make_truth(tile: Tile, *boxes: tuple) -> Annotation:
    """Truth on a tile from (class number, x, y, width, height) tuples; none at all is a confirmed-empty tile."""
    inputs = [BoxInput(*box) for box in boxes]
    return import_annotation(tile=tile, source="made truth", uuid=uuid4(), boxes=inputs)


def submit_task(task: Task, user: User, *boxes: tuple, seconds: float = 60.0) -> Annotation:
    annotation, _ = submit(
        task=task,
        user=user,
        uuid=uuid4(),
        revision=task.revision,
        boxes=[BoxInput(*box) for box in boxes],
        effort=Effort(seconds, seconds + 30, keys=5, clicks=2),
    )
    task.refresh_from_db()
    return annotation


def make_version(
    project: Project, *, current: bool = False, snapshot_hash: str = "0" * 64, export: ModelExport | None = None
) -> ModelVersion:
    """A model version whose weights are a file, but not one that a detector could load."""
    local = Path(settings.DATA_DIR) / f"made/{next(_numbers)}.pt"
    local.parent.mkdir(parents=True, exist_ok=True)
    local.write_bytes(f"weights {next(_numbers)}".encode())
    config = {"image_size": 320, "epochs": 1}
    version = register_version(
        project=project, weights=local, snapshot_hash=snapshot_hash, config=config, export=export
    )
    if current:
        make_current(version=version)
        version.refresh_from_db()
    return version


def make_pre_label(task: Task, version: ModelVersion, *boxes: tuple, score: float = 0.9) -> Annotation:
    """A pre-label on the task's tile from (class number, x, y, width, height) tuples."""
    annotation = Annotation.objects.create(uuid=uuid4(), tile=task.tile, author=version.author)
    classes = {one.number: one for one in version.taxonomy.classes.all()}
    for number, x, y, width, height in boxes:
        Box.objects.create(
            annotation=annotation, cell_class=classes[number], x=x, y=y, width=width, height=height, score=score
        )
    task.pre_label = annotation
    task.save(update_fields=["pre_label"])
    return annotation


def make_metrics(version: ModelVersion, map50: float | None = 0.5) -> dict:
    """Metrics in the form that training.engine.metrics gives them."""
    classes = list(version.taxonomy.classes.all())
    row = {"ap50": map50, "precision": 0.5, "recall": 0.5, "f1": 0.5, "average_iou": 0.7}
    row |= {"log_average_miss_rate": 0.5, "count_mse": 1.25, "truth_count": 4}
    return {
        "map50": map50,
        "map50_interval": None if map50 is None else [map50 - 0.1, map50 + 0.1],
        "interval_over": "patients",
        "classes": [{"name": one.name} | row for one in classes if not one.ignored_in_training],
        "confusion": [[0.5] * (len(classes) + 1) for _ in range(len(classes) + 1)],
    }


def make_evaluation(
    version: ModelVersion, map50: float | None = 0.5, *, part: Part = Part.TEST, truth_hash: str = "1" * 64
) -> Evaluation:
    return Evaluation.objects.create(
        model_version=version,
        part=part,
        tiles=7,
        boxes=31,
        patients=2,
        truth_hash=truth_hash,
        metrics=make_metrics(version, map50),
    )


def make_cross_validation(project: Project, *map50: float | None, folds: int = 5, **fields) -> CrossValidation:
    """A cross-validation whose first folds have been measured, with these mAP@0.5."""
    version = make_version(project)
    made = [
        {"patients": [f"C{number}"], "tiles": [number], "boxes": 4} | _measured(version, map50[number : number + 1])
        for number in range(folds)
    ]
    return CrossValidation.objects.create(
        project=project, fold_count=folds, settings=vars(TrainingSettings()), folds=made, **fields
    )


def _measured(version: ModelVersion, map50: tuple[float | None, ...]) -> dict:
    if not map50:
        return {}
    measured = {"validation": ["C9"], "trained_tiles": 12, "best_epoch": 3, "last_epoch": 4, "without_box": []}
    return measured | {"metrics": make_metrics(version, map50[0])}


def make_round(project: Project, *, state: RoundState = RoundState.ANNOTATING, number: int = 1, **fields) -> Round:
    values = {"mode": Mode.MANUAL, "settings": vars(RoundSettings(size=4))}
    return Round.objects.create(project=project, number=number, state=state, **(values | fields))


def make_job(project: Project, *, state: JobState = JobState.QUEUED, kind: JobKind = JobKind.EXPORT, **fields) -> Job:
    """A job row that no worker has been told of."""
    values = {"subject": "COCO", "arguments": {"format": "coco", "images": False, "part": "all"}}
    if state == JobState.RUNNING:
        values |= {"heartbeat_at": timezone.now(), "started_at": timezone.now(), "attempt": 1}
    return Job.objects.create(project=project, kind=kind, state=state, **(values | fields))


def make_export(project: Project) -> Job:
    """An export job that has succeeded, with its archive in storage."""
    name = default_storage.save("exports/made.zip", ContentFile(b"PK an archive"))
    return make_job(project, state=JobState.SUCCEEDED, result={"file": name, "bytes": 13, "message": "0 tiles"})


def make_simulation(project: Project, *, seeds: int = 2, state: JobState = JobState.SUCCEEDED, **fields) -> Job:
    """A simulation of arms a and c; one that has succeeded has a real report on made-up rounds."""
    settings = Simulated(arms=("a", "c"), seeds=seeds, rounds=3, batch=4)
    values = {"subject": "2 arms", "arguments": {"settings": settings.to_json()}}
    job = make_job(project, kind=JobKind.SIMULATE, state=state, **(values | fields))
    if state == JobState.SUCCEEDED:
        folder = _drawn_report(settings)
        job.result = json.loads((folder / "row.json").read_text(encoding="utf-8"))
        for name, stored in job.result["files"].items():
            job.result["files"][name] = store(folder / name, f"{job.pk}/{stored}")
        job.save()
    return job


@cache
def _drawn_report(settings: Simulated) -> Path:
    """A folder with the report of made-up rounds and, as row.json, what a job keeps of it. Drawing takes a second."""
    folder = Path(mkdtemp())
    job = Job(pk=0, project_id=0, arguments={"settings": settings.to_json()})
    facts = {"names": ["neutrophil", "erythroblast"], "rare": [1], "slides": {"made.tif": "0" * 64}}
    facts |= {"pool_tiles": 20, "pool_boxes": 140, "test_tiles": 5, "test_boxes": 33, "test_patients": ["P9"]}
    kept = keep_report(job, made_curves(settings), facts, folder)
    write_json(folder / "row.json", kept)
    return folder


def made_curves(settings: Simulated) -> Curves:
    """Rounds of which each brings a little more; the later an arm in the alphabet, the faster and the better it is."""
    seeds = range(settings.seeds)
    return {arm: {seed: _made_points(settings, arm, seed) for seed in seeds} for arm in settings.arms}


def _made_points(settings: Simulated, arm: str, seed: int) -> list[Point]:
    points: list[Point] = []
    for number, step in enumerate(ARMS[arm].steps(settings.rounds), start=1):
        drawn = 9 if step.assisted else 40
        work = Work(drawn, 2 * drawn, 4 * drawn, drawn, 40)
        map50 = 0.7 - 0.5 / (number + seed / 10 + 0.3 * "abcde".index(arm) * (number > 1))
        point = Point(
            round=number,
            assisted=step.assisted,
            tiles=settings.batch * number,
            boxes=40 * number,
            work=work + (points[-1].work if points else Work()),
            map50=map50,
            interval=(map50 - 0.1, map50 + 0.1),
            aps={"neutrophil": map50 + 0.1, "erythroblast": map50 - 0.1},
            batch_tiles=settings.batch,
            batch_boxes=40,
            batch_rare=5 + 2 * step.assisted,
            batch_work=work,
            fates={"kept": 30, "moved": 1, "deleted": 3, "reclassified": 4} if step.assisted else {},
        )
        points.append(point)
    return points


def make_label_import(project: Project, *, state: JobState = JobState.SUCCEEDED, step: str = "read", **fields) -> Job:
    """A step of an import as it is done: labels of two class names were read, on one tile, and nothing is wrong."""
    classes = [{"name": "neutrophil", "boxes": 1, "tiles": 1}, {"name": "Blast", "boxes": 2, "tiles": 1}]
    found = {"format": "coco", "first_pixel": 1, "first_pixel_reason": "", "images": 0, "tiles": 1, "known": 1}
    found |= {"boxes": 3, "classes": classes, "problems": [], "problems_count": 0}
    arguments = {"step": step, "file": "imports/made.zip", "format": ""}
    values = {"subject": "labels.zip", "arguments": arguments, "result": found if state == JobState.SUCCEEDED else {}}
    return make_job(project, kind=JobKind.IMPORT_LABELS, state=state, **(values | fields))


def make_webhook(project: Project, url: str = "http://127.0.0.1:9/", **fields) -> Webhook:
    """A webhook that wants to know everything; its secret is made up."""
    values = {"events": list(WebhookEvent.values), "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    return Webhook.objects.create(project=project, url=url, **(values | fields))


def make_delivery(webhook: Webhook, **fields) -> Delivery:
    """A message that waits."""
    values = {"event": "test", "subject": f"test {next(_numbers)}", "body": "{}", "next_at": timezone.now()}
    return Delivery.objects.create(webhook=webhook, **(values | fields))


def make_upload(project: Project, user: User, *, size: int = 100, **fields) -> Upload:
    """An upload of which nothing has come yet."""
    values = {"name": "A.tif", "modified": 1_700_000_000_000, "fingerprint": "crc-32:00000000"}
    values |= {"facts": asdict(SlideFacts(patient="", tiling="edge"))}
    return Upload.objects.create(project=project, user=user, size=size, **(values | fields))


def make_folder(project: Project, path: Path | str = "/nowhere", **fields) -> SlideFolder:
    """A registered folder that nobody has looked into yet."""
    values = {"patient_rule": "file", "facts": asdict(SlideFacts(patient="", tiling="edge")), "every_minutes": 60}
    values |= {"next_look_at": timezone.now()}
    return SlideFolder.objects.create(project=project, path=str(path), **(values | fields))


def make_import_author(project: Project, name: str = "elsewhere") -> Author:
    return Author.objects.create(project=project, kind=AuthorKind.IMPORT, name=name)
