"""The inside of a simulation: a site of its own, whose readers are simulated. See training.simulation.tree.

Everything but the reader is what a lab uses: the batch builder, pre-labelling, tasks, submissions, snapshots, the
trainer, the evaluation.
"""

import json
import os
import signal
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from celery import current_app
from django.core.files.storage import default_storage
from django.core.management import call_command
from django.db import transaction
from django.db.models import Prefetch

from annotation.agreement import Reading
from annotation.models import Batch, Box, CellClass, JobState, Patient, Project, Role, Slide, Task, Tile, User
from annotation.services.annotations import BoxInput, Effort, import_annotation, submit
from annotation.services.batches import claim_next
from annotation.services.patience import until_job_ends
from annotation.services.projects import create_project, create_taxonomy, set_locked, set_member
from annotation.services.slide_files import slide_paths
from annotation.services.slides import SlideFacts, import_slide
from annotation.services.truth import boxes_on, countable_tiles, read_truth
from annotation.slides.image import READABLE_SUFFIXES
from annotation.taxonomies import PRESETS, ClassSpec, TaxonomySpec
from training.curve import FATES, size_of
from training.models import Mode, Round, RoundState
from training.services.rounds import RoundSettings, close_round, start_round
from training.simulation.expert import Answer, Classes, Expert
from training.simulation.operators import Work
from training.simulation.plan import ONE_STAGE, ONE_STAGE_PASSES, epochs_for
from training.simulation.results import Point
from training.simulation.settings import Settings
from training.simulation.tree import SimulationError, Source, write_json

READER = "expert"
TRUTH = "known truth"
SLIDE_FIELDS = (
    *("name", "sha256", "bytes", "vendor", "width", "height", "mpp", "objective_power", "site", "preparation"),
    "tiling",
)
TILE_FIELDS = ("row", "column", "x", "y", "extent", "width", "height")
RARE_SHARE = 0.5  # of an equal share of the pool's cells: a class with fewer is rare in the report
TRAINED_SHARE = 0.8  # of the confirmed tiles, about; the rest validates
ENDED = (JobState.FAILED, JobState.CANCELLED)


# Where the cells come from


def slides_source(folder: Path, *, test: Sequence[str], taxonomy: str) -> Source:
    """Slides with their truth files beside them; each is a patient's. Raises SimulationError."""
    if not folder.is_dir():
        raise SimulationError(f"{folder}: no such folder.")
    slides = sorted(path for path in folder.iterdir() if path.suffix.lower() in READABLE_SUFFIXES)
    missing = [path.name for path in slides if not path.with_suffix(".json").is_file()]
    if not slides or missing:
        raise SimulationError(f"{folder}: no slides with truth files beside them ({', '.join(missing) or 'empty'}).")
    unknown = sorted(set(test) - {path.stem for path in slides})
    if unknown or not test:
        raise SimulationError(f"{folder}: no slide of the test patients {', '.join(unknown) or '(name some)'}.")
    if len(test) >= len(slides):
        raise SimulationError(f"{folder}: every patient is a test patient, so there is nothing to learn from.")
    return Source("slides", {"slides": [str(path.resolve()) for path in slides], "test": [*test], "taxonomy": taxonomy})


def project_source(project: Project) -> Source:
    """A project's tiles with truth, and its locked patients. Raises SimulationError if these are too few."""
    tiles = Tile.objects.filter(truth__isnull=False).prefetch_related(
        Prefetch("truth__boxes", Box.objects.select_related("cell_class"))
    )
    slides: Iterable[Slide] = (
        project.slides.filter(tiles__truth__isnull=False)
        .distinct()
        .select_related("patient")
        .prefetch_related(Prefetch("tiles", tiles, to_attr="known"))
    )
    facts = [_slide_facts(slide) for slide in slides]
    if not any(one["locked"] for one in facts) or all(one["locked"] for one in facts):
        raise SimulationError(
            f"{project} needs tiles with truth both of patients of the locked test set and of others: what the loop "
            "would buy is measured on patients that no arm has seen."
        )
    classes = [
        asdict(ClassSpec(**{name: getattr(one, name) for name in ClassSpec.__dataclass_fields__}))
        for one in project.taxonomy.classes.all()
    ]
    return Source("project", {"name": project.taxonomy.name, "classes": classes, "slides": facts})


_paths = ExitStack()  # outside a job, what a simulation reads stays where it is until this process ends


def _slide_facts(slide: Any) -> dict[str, Any]:
    files = (until_job_ends.get() or _paths).enter_context(slide_paths(slide))
    return {
        "patient": slide.patient.code,
        "locked": slide.patient.locked,
        "files": [str(path) for path in files],
        "fields": {name: getattr(slide, name) for name in SLIDE_FIELDS},
        "tiles": [
            {
                "fields": {name: getattr(tile, name) for name in TILE_FIELDS},
                "boxes": [
                    [box.cell_class.number, box.x, box.y, box.width, box.height] for box in tile.truth.boxes.all()
                ],
            }
            for tile in slide.known
        ],
    }


# Inside


def run_task(file: Path) -> None:
    """What training.simulation.tree asks of a process whose data folder is the simulation's."""
    if stat.S_ISFIFO(os.fstat(0).st_mode):  # and not when it was started by hand
        threading.Thread(target=_end_with_starter, daemon=True).start()
    current_app.loader.import_default_modules()  # the jobs run here: there is no worker
    task = json.loads(file.read_text(encoding="utf-8"))
    settings = Settings.of_json(task["settings"])
    if task["do"] == "prepare":
        result: Any = _prepare(task["kind"], task["facts"])
    else:
        result = _round(task, settings).to_json()
    write_json(Path(task["result"]), result)


def _end_with_starter() -> None:
    """End this process and all that it has started, which are a session, when nobody is left at the other end of stdin:
    who started it was killed, and another attempt may take up the same folder.
    """
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


def _prepare(kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A project with slides whose every tile's cells are known; returns these, by tile key, and the rare classes."""
    call_command("migrate", verbosity=0)
    project, known = _of_slides(facts) if kind == "slides" else _of_project(facts)
    Tile.objects.filter(slide__project=project).exclude(pk__in=known).delete()
    reader = User.objects.create(username=READER)
    set_member(project=project, member=reader, role=Role.ANNOTATOR, user=None)
    locked = Tile.objects.filter(slide__project=project, slide__patient__locked=True)
    for tile in locked.select_related("slide__project__taxonomy"):
        boxes = [BoxInput(int(number), x, y, w, h) for number, x, y, w, h in known.pop(tile.pk)]
        import_annotation(tile=tile, source=TRUTH, uuid=uuid4(), boxes=boxes)
    if not known:
        raise SimulationError("No tile outside the locked test set has known cells.")
    counts = Counter(row[0] for rows in known.values() for row in rows)
    classes = list(project.taxonomy.classes.filter(ignored_in_training=False))
    equal = sum(counts[one.number] for one in classes) / len(classes)
    rare = [one.number for one in classes if counts[one.number] < RARE_SHARE * equal]
    return {
        "pool_tiles": len(known),
        "pool_boxes": counts.total(),
        "test_tiles": locked.count(),
        "test_boxes": Box.objects.filter(annotation__in=locked.values("truth")).count(),
        "test_patients": sorted(Patient.objects.filter(project=project, locked=True).values_list("code", flat=True)),
        "classes": {one.name: counts[one.number] for one in classes},
        "names": list(project.taxonomy.classes.values_list("name", flat=True)),
        "rare": rare,
        "commonest": counts.most_common(1)[0][0] if counts else 0,
        "slides": {one.name: one.sha256 for one in project.slides.order_by("name")},
        "known": {str(key): rows for key, rows in known.items()},
    }


Known = dict[int, list[list[float]]]  # class number, x, y, width, height in tile px, by tile key


def _of_slides(facts: Mapping[str, Any]) -> tuple[Project, Known]:
    project = create_project(name="Simulation", taxonomy=create_taxonomy(spec=PRESETS[facts["taxonomy"]]), lead=None)
    known: Known = {}
    for path in map(Path, facts["slides"]):
        about = SlideFacts(patient=path.stem, tiling="edge")
        slide = import_slide(project=project, paths=[path], name=path.name, facts=about, user=None)
        truth = read_truth(path.with_suffix(".json"))
        for tile in countable_tiles(truth, slide):
            known[tile.pk] = [list(asdict(box).values())[:5] for box in boxes_on(truth, tile)]
    for patient in Patient.objects.filter(project=project, code__in=facts["test"]):
        set_locked(patient=patient, locked=True, user=None)
    return project, known


@transaction.atomic
def _of_project(facts: Mapping[str, Any]) -> tuple[Project, Known]:
    spec = TaxonomySpec(facts["name"], tuple(ClassSpec(**one) for one in facts["classes"]))
    project = create_project(name="Simulation", taxonomy=create_taxonomy(spec=spec), lead=None)
    known: Known = {}
    for one in facts["slides"]:
        patient, _ = Patient.objects.get_or_create(project=project, code=one["patient"], locked=one["locked"])
        names = [f"linked/{one['fields']['sha256']}/{Path(path).name}" for path in one["files"]]
        for name, path in zip(names, one["files"], strict=True):
            link = Path(default_storage.path(name))
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        slide = Slide.objects.create(project=project, patient=patient, files=names, **one["fields"])
        for row in one["tiles"]:
            tile = Tile.objects.create(slide=slide, **row["fields"])
            known[tile.pk] = row["boxes"]
    return project, known


def _round(task: Mapping[str, Any], settings: Settings) -> Point:
    facts = json.loads(Path(task["known"]).read_text(encoding="utf-8"))
    before = json.loads(Path(task["before"]).read_text(encoding="utf-8")) if task["before"] else None
    project = Project.objects.select_related("taxonomy").get()
    mode = Mode.ASSISTED if task["assisted"] else Mode.MANUAL
    round_ = start_round(project=project, mode=mode, settings=_round_settings(task, settings, facts), user=None)
    _work_off(round_, RoundState.ANNOTATING)
    if round_.batch is None:
        raise SimulationError(f"{round_} has no batch.")
    read, work, fates = _read(round_.batch, facts, settings, seed=task["seed"])
    close_round(round_=round_, user=None)
    _work_off(round_, RoundState.DONE)
    return _point(round_, read, work, fates, facts, before=Work(**before["work"]) if before else Work())


def _round_settings(task: Mapping[str, Any], settings: Settings, facts: Mapping[str, Any]) -> RoundSettings:
    tiles = TRAINED_SHARE * min(settings.batch * task["number"], facts["pool_tiles"])
    cells = tiles * facts["pool_boxes"] / facts["pool_tiles"]
    passes = settings.finder_passes * (ONE_STAGE_PASSES if task["kind"] == ONE_STAGE else 1)
    return RoundSettings(
        size=settings.batch,
        strategy=task["strategy"],
        mix=task["mix"],
        kind=task["kind"],
        model=settings.model,
        image_size=settings.image_size,
        epochs=epochs_for(passes, round(tiles)),
        classifier_epochs=epochs_for(settings.classifier_passes, round(cells)),
        from_previous=settings.from_previous,
        seed=1000 * task["seed"],  # a round adds its number
    )


def _work_off(round_: Round, goal: RoundState) -> None:
    """Run the round's jobs one after the other, here, until it is at this state. Raises SimulationError."""
    while True:
        round_.refresh_from_db()
        if round_.state == goal:
            return
        job = round_.job
        if job is None or job.state in ENDED:
            raise SimulationError(f"{round_} stopped while {round_.state}: {job.message if job else 'no job'}")
        current_app.tasks[f"jobs.{job.kind}"](job.pk)


def _read(
    batch: Batch, facts: Mapping[str, Any], settings: Settings, *, seed: int
) -> tuple[dict[int, Answer], Work, Counter[str]]:
    """Answer every task of the batch; the answers by tile key, what they cost, and what became of pre-labels."""
    classes = list(batch.project.taxonomy.classes.all())
    expert = Expert(_classes(classes), settings.errors, settings.operators, seed=seed)
    reader = User.objects.get(username=READER)
    read: dict[int, Answer] = {}
    total, fates = Work(), Counter[str]()
    while True:
        task = claim_next(batch=batch, reader=reader)
        if task is None:
            return read, total, fates
        shown, keys = _shown(task)
        rows = facts["known"][str(task.tile_id)]
        truth = Reading.of([row[1:] for row in rows], [row[0] for row in rows])
        answer = expert.answer(truth, shown, tile=task.tile_id, armed=facts["commonest"])
        seconds = answer.work.seconds(settings.operators)
        effort = Effort(seconds, seconds, answer.work.keys, answer.work.buttons // 2)
        boxes = [
            BoxInput(box.class_number, *box.place, None if box.origin is None else keys[box.origin])
            for box in answer.boxes
        ]
        stored, _ = submit(task=task, user=reader, uuid=uuid4(), revision=task.revision, boxes=boxes, effort=effort)
        read[task.tile_id] = answer
        total += answer.work
        if shown is not None:
            fates.update({name: stored.effort.get(name, 0) for name in (*FATES, "added")})


def _classes(classes: Sequence[CellClass]) -> Classes:
    return Classes.of(
        [one.hotkey for one in classes], [one.lineage for one in classes], [one.maturation for one in classes]
    )


def _shown(task: Task) -> tuple[Reading | None, list[int]]:
    """The task's pre-labels in the order of the editor's walk, the least certain first, and the keys of their boxes."""
    if task.pre_label_id is None:
        return None, []
    boxes = Box.objects.filter(annotation=task.pre_label_id).order_by("score", "pk")
    rows = list(boxes.values_list("pk", "cell_class__number", "x", "y", "width", "height"))
    return Reading.of([row[2:] for row in rows], [row[1] for row in rows]), [row[0] for row in rows]


def _point(
    round_: Round,
    read: Mapping[int, Answer],
    work: Work,
    fates: Mapping[str, int],
    facts: Mapping[str, Any],
    *,
    before: Work,
) -> Point:
    version = round_.model_version
    evaluation = version.evaluations.order_by("part", "-pk").first() if version else None
    if evaluation is None:
        raise SimulationError(f"{round_} has not been evaluated.")
    tiles, boxes = size_of(round_.snapshot)
    interval = evaluation.metrics.get("map50_interval")
    rare = set(facts["rare"])
    return Point(
        round=round_.number,
        assisted=round_.mode == Mode.ASSISTED,
        tiles=tiles or 0,
        boxes=boxes or 0,
        work=before + work,
        map50=evaluation.metrics["map50"] or 0.0,
        interval=(interval[0], interval[1]) if interval else None,
        aps={one["name"]: one["ap50"] for one in evaluation.metrics["classes"]},
        batch_tiles=len(read),
        batch_boxes=sum(len(one.boxes) for one in read.values()),
        # As the tiles hold them, not as they were read.
        batch_rare=sum(row[0] in rare for key in read for row in facts["known"][str(key)]),
        batch_work=work,
        fates=dict(fates),
    )
