"""What the database itself refuses, and what never changes."""

from uuid import uuid4

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from annotation.models import (
    Annotation,
    ApiToken,
    Author,
    Batch,
    Box,
    CellClass,
    Draft,
    Event,
    FolderFile,
    Job,
    Membership,
    Notice,
    Patient,
    Slide,
    Task,
    Taxonomy,
    Tile,
)
from annotation.models.annotation import ImmutableError
from annotation.services.annotations import author_of
from inference.models import Candidate, ModelVersion, TileScore
from tests import factories
from training.models import CrossValidation, Evaluation, Round, Schedule, Snapshot, SnapshotTile

pytestmark = pytest.mark.django_db


def one_box(**fields):
    annotation = factories.make_truth(factories.make_tile())
    cell_class = CellClass.objects.get(taxonomy=annotation.tile.slide.project.taxonomy, number=0)
    values = {"x": 1, "y": 2, "width": 3, "height": 4} | fields
    return Box.objects.create(annotation=annotation, cell_class=cell_class, **values)


def one_annotation(**fields):
    tile = factories.make_tile()
    author = factories.make_import_author(tile.slide.project)
    return Annotation.objects.create(**({"uuid": uuid4(), "tile": tile, "author": author} | fields))


def box_has_an_area():
    one_box(width=0)


def box_has_an_area_also_in_height():
    one_box(height=-1)


def box_begins_inside_the_tile():
    one_box(x=-1)


def score_in_0_1():
    one_box(score=1.2)


def known_scope():
    factories.make_token(factories.make_user())
    ApiToken.objects.update(scope="all")


def a_lease_has_a_reader_and_an_end():
    Task.objects.filter(pk=factories.make_task().pk).update(state="leased")


def a_lease_has_an_end():
    Task.objects.filter(pk=factories.make_task().pk).update(state="leased", reader=factories.make_user())


def one_annotation_per_revision():
    task = factories.make_task()
    for _ in range(2):
        one_annotation(tile=task.tile, task=task, revision=1)


def a_revision_belongs_to_a_task():
    one_annotation(revision=1)


def active_time_in_wall_time():
    one_annotation(active_seconds=10, wall_seconds=9)


def active_time_is_not_negative():
    one_annotation(active_seconds=-1, wall_seconds=9)


def one_annotation_per_uuid():
    one_annotation(uuid=one_annotation().uuid)


def a_person_is_a_user():
    Author.objects.create(kind="person", name="somebody")


def a_model_is_not_a_user():
    Author.objects.create(kind="model", name="model 1", user=factories.make_user())


def an_import_belongs_to_a_project():
    Author.objects.create(kind="import", name="elsewhere")


def one_author_per_name():
    project = factories.make_project()
    for _ in range(2):
        factories.make_import_author(project)


def one_draft_per_reader():
    task, user = factories.make_task(), factories.make_user()
    for _ in range(2):
        Draft.objects.create(task=task, user=user, sequence=1, revision=0, boxes=[])


def one_task_per_reading():
    task = factories.make_task()
    Task.objects.create(batch=task.batch, tile=task.tile, position=99)


def nobody_reads_a_tile_of_a_batch_twice():
    reader, task = factories.make_user(), factories.make_task()
    for replica in (1, 2):
        Task.objects.create(batch=task.batch, tile=task.tile, position=0, replica=replica, reader=reader)


def independent_readers_are_two_or_more():
    Batch.objects.create(project=factories.make_project(), name="Round 1", policy="independent", readers=1)


def review_share_in_0_1():
    Batch.objects.create(project=factories.make_project(), name="Round 1", review_share=1.5)


def one_batch_per_name():
    project = factories.make_project()
    for _ in range(2):
        Batch.objects.create(project=project, name="Round 1")


def one_role_per_member():
    project = factories.make_project()
    user = factories.make_member(project)
    Membership.objects.create(project=project, user=user, role="lead")


def known_role():
    factories.make_member(factories.make_project(), "owner")


def one_patient_per_code():
    project = factories.make_project()
    for _ in range(2):
        factories.make_patient(project, "P1")


def one_slide_per_content():
    slide = factories.make_slide(factories.make_project())
    Slide.objects.filter(pk=factories.make_slide(slide.project).pk).update(sha256=slide.sha256)


def only_a_plain_image_lacks_mpp():
    factories.make_slide(factories.make_project(), mpp=None)


def mpp_is_positive():
    factories.make_slide(factories.make_project(), mpp=0)


def one_tile_per_place():
    tile = factories.make_tile()
    Tile.objects.create(slide=tile.slide, row=5, column=5, x=tile.x, y=tile.y, extent=512)


def one_taxonomy_per_version():
    for _ in range(2):
        Taxonomy.objects.create(name="A list", version=1)


def _open_taxonomy_class(**fields):
    taxonomy, _ = Taxonomy.objects.get_or_create(name="An open list", version=1)
    values = {"number": 0, "code": "AAA", "name": "a cell", "colour": "#000000", "hotkey": "1"}
    CellClass.objects.create(taxonomy=taxonomy, **(values | fields))


OTHERWISE = {"number": 1, "code": "BBB", "name": "b cell", "hotkey": "2"}


def _same_again(field):
    _open_taxonomy_class()
    _open_taxonomy_class(**{key: value for key, value in OTHERWISE.items() if key != field})


def one_class_per_number():
    _same_again("number")


def one_class_per_code():
    _same_again("code")


def one_class_per_name():
    _same_again("name")


def one_class_per_hotkey():
    _same_again("hotkey")


def progress_in_0_1():
    factories.make_job(factories.make_project(), progress=1.5)


def a_running_job_has_a_heartbeat():
    Job.objects.filter(pk=factories.make_job(factories.make_project()).pk).update(state="running")


def one_version_per_number():
    first = factories.make_version(factories.make_project())
    ModelVersion.objects.filter(pk=factories.make_version(first.project).pk).update(number=first.number)


def one_current_model():
    project = factories.make_project()
    factories.make_version(project, current=True)
    ModelVersion.objects.filter(pk=factories.make_version(project).pk).update(is_current=True)


def one_score_per_tile():
    tile = factories.make_tile()
    version = factories.make_version(tile.slide.project)
    for _ in range(2):
        TileScore.objects.create(model_version=version, tile=tile, expected=[0, 0, 0])


def a_tile_is_put_up_once():
    tile = factories.make_tile()
    batch = factories.make_batch(tile.slide.project, [tile])
    for place in range(2):
        Candidate.objects.create(batch=batch, tile=tile, state="reserve", place=place, strategy="rare")


def one_round_at_a_time():
    project = factories.make_project()
    for number in (1, 2):
        factories.make_round(project, number=number)


def one_round_per_number():
    project = factories.make_project()
    for _ in range(2):
        factories.make_round(project, state="done")


def one_snapshot_per_content():
    project = factories.make_project()
    for _ in range(2):
        Snapshot.objects.create(project=project, taxonomy=project.taxonomy, content_hash="a" * 64)


def a_tile_is_in_one_part():
    annotation = factories.make_truth(factories.make_tile())
    project = annotation.tile.slide.project
    snapshot = Snapshot.objects.create(project=project, taxonomy=project.taxonomy, content_hash="a" * 64)
    for part in ("train", "val"):
        SnapshotTile.objects.create(snapshot=snapshot, tile=annotation.tile, annotation=annotation, part=part)


def a_cross_validation_has_two_folds():
    CrossValidation.objects.create(project=factories.make_project(), fold_count=1, settings={})


def one_evaluation_per_truth():
    version = factories.make_version(factories.make_project())
    for _ in range(2):
        factories.make_evaluation(version)


def one_notice_per_subject():
    project = factories.make_project()
    user = factories.make_member(project)
    for _ in range(2):
        Notice.objects.create(user=user, project=project, kind="run-failed", subject="job 1", text="failed", path="/")


def a_schedule_waits_for_a_tile():
    Schedule.objects.create(project=factories.make_project(), new_tiles=0)


def a_schedule_has_a_weekday():
    Schedule.objects.create(project=factories.make_project(), weekdays="")


def a_set_time_comes_next():
    Schedule.objects.create(project=factories.make_project(), mode="times")


def one_webhook_per_address():
    project = factories.make_project()
    for _ in range(2):
        factories.make_webhook(project)


def one_delivery_per_subject():
    webhook = factories.make_webhook(factories.make_project())
    for _ in range(2):
        factories.make_delivery(webhook, subject="batch 1")


def what_waits_has_a_time():
    factories.make_delivery(factories.make_webhook(factories.make_project()), next_at=None)


def what_is_over_has_none():
    factories.make_delivery(factories.make_webhook(factories.make_project()), state="delivered")


def one_delivery_per_id():
    webhook, uuid = factories.make_webhook(factories.make_project()), uuid4()
    for _ in range(2):
        factories.make_delivery(webhook, uuid=uuid)


def one_upload_per_file():
    project, user = factories.make_project(), factories.make_user()
    for _ in range(2):
        factories.make_upload(project, user)


def received_of_its_size():
    factories.make_upload(factories.make_project(), factories.make_user(), size=100, received=101)


def a_folder_is_registered_once():
    project = factories.make_project()
    for _ in range(2):
        factories.make_folder(project)


def one_row_per_file():
    folder = factories.make_folder(factories.make_project())
    for _ in range(2):
        FolderFile.objects.create(folder=folder, name="A.tif", size=1, modified=1)


VIOLATIONS = [
    one_webhook_per_address,
    one_delivery_per_subject,
    what_waits_has_a_time,
    a_folder_is_registered_once,
    one_row_per_file,
    one_upload_per_file,
    received_of_its_size,
    known_scope,
    one_notice_per_subject,
    a_schedule_waits_for_a_tile,
    a_schedule_has_a_weekday,
    a_set_time_comes_next,
    box_has_an_area,
    score_in_0_1,
    a_lease_has_a_reader_and_an_end,
    one_annotation_per_revision,
    a_revision_belongs_to_a_task,
    active_time_in_wall_time,
    a_person_is_a_user,
    one_author_per_name,
    one_draft_per_reader,
    one_task_per_reading,
    nobody_reads_a_tile_of_a_batch_twice,
    independent_readers_are_two_or_more,
    review_share_in_0_1,
    one_batch_per_name,
    one_role_per_member,
    known_role,
    one_patient_per_code,
    one_slide_per_content,
    mpp_is_positive,
    only_a_plain_image_lacks_mpp,
    one_tile_per_place,
    one_taxonomy_per_version,
    one_class_per_number,
    one_class_per_code,
    one_class_per_name,
    one_class_per_hotkey,
    progress_in_0_1,
    a_running_job_has_a_heartbeat,
    one_version_per_number,
    one_current_model,
    one_score_per_tile,
    a_tile_is_put_up_once,
    one_round_at_a_time,
    one_round_per_number,
    one_snapshot_per_content,
    a_tile_is_in_one_part,
    one_evaluation_per_truth,
    a_cross_validation_has_two_folds,
]
FURTHER = [
    what_is_over_has_none,
    one_delivery_per_id,
    box_has_an_area_also_in_height,
    box_begins_inside_the_tile,
    a_lease_has_an_end,
    active_time_is_not_negative,
    one_annotation_per_uuid,
    a_model_is_not_a_user,
    an_import_belongs_to_a_project,
]


def constraint_of(name):
    ours = (model for app in ("annotation", "inference", "training") for model in apps.get_app_config(app).get_models())
    return next((model, one) for model in ours for one in model._meta.constraints if one.name == name)


@pytest.mark.parametrize("violate", VIOLATIONS, ids=lambda violate: violate.__name__)
def test_the_database_holds_the_constraint(violate):
    with pytest.raises(IntegrityError) as refused, transaction.atomic():
        violate()
    model, constraint = constraint_of(violate.__name__)
    # SQLite names the columns of a unique constraint, not the constraint.
    fields = getattr(constraint, "fields", ())
    columns = ", ".join(f"{model._meta.db_table}.{model._meta.get_field(field).column}" for field in fields)
    assert violate.__name__ in str(refused.value) or (columns and columns in str(refused.value))


@pytest.mark.parametrize("violate", FURTHER, ids=lambda violate: violate.__name__)
def test_the_database_refuses(violate):
    with pytest.raises(IntegrityError), transaction.atomic():
        violate()


def test_every_named_constraint_has_a_violation():
    ours = (model for app in ("annotation", "inference", "training") for model in apps.get_app_config(app).get_models())
    names = {constraint.name for model in ours for constraint in model._meta.constraints}
    assert names == {violate.__name__ for violate in VIOLATIONS}


def immutable_rows():
    annotation = factories.make_truth(factories.make_tile(), (0, 1, 2, 30, 40))
    project = annotation.tile.slide.project
    version = factories.make_version(project)
    snapshot = Snapshot.objects.create(project=project, taxonomy=project.taxonomy, content_hash="a" * 64)
    part = SnapshotTile.objects.create(snapshot=snapshot, tile=annotation.tile, annotation=annotation, part="train")
    evaluation = factories.make_evaluation(version)
    return [annotation, annotation.boxes.get(), Event.objects.first(), snapshot, part, evaluation]


def test_what_is_written_once_cannot_be_saved_updated_or_deleted():
    rows = immutable_rows()
    assert [type(row) for row in rows] == [Annotation, Box, Event, Snapshot, SnapshotTile, Evaluation]
    for row in rows:
        before = type(row).objects.filter(pk=row.pk).values().get()
        everything = type(row).objects.all()
        for write in (row.save, row.delete, lambda rows=everything: rows.update(pk=99), everything.delete):
            with pytest.raises(ImmutableError):
                write()
        assert type(row).objects.filter(pk=row.pk).values().get() == before


def test_rows_that_never_change_cannot_be_updated_in_bulk():
    box = one_box()
    box.x = 100
    with pytest.raises(ImmutableError):
        Box.objects.bulk_update([box], ["x"])


def test_a_project_with_annotations_cannot_be_deleted():
    annotation = factories.make_truth(factories.make_tile())
    with pytest.raises((models.ProtectedError, ImmutableError)), transaction.atomic():
        annotation.tile.slide.project.delete()
    assert Annotation.objects.filter(pk=annotation.pk).exists()


def test_somebody_who_has_submitted_cannot_be_deleted():
    user = factories.make_user()
    author_of(user=user)
    with pytest.raises(models.ProtectedError):
        user.delete()


def test_a_frozen_taxonomy_takes_no_new_class():
    taxonomy = factories.make_taxonomy()
    with pytest.raises(ValidationError, match="frozen"):
        CellClass.objects.create(taxonomy=taxonomy, number=9, code="NEW", name="new cell", colour="#123456", hotkey="9")


@pytest.mark.parametrize(("field", "value"), [("name", "other name"), ("code", "XXX"), ("number", 7)])
def test_a_frozen_class_keeps_its_name_code_and_number(field, value):
    one = factories.make_taxonomy().classes.first()
    setattr(one, field, value)
    with pytest.raises(ValidationError, match="frozen"):
        one.save()


def test_a_frozen_class_may_change_its_colour():
    one = factories.make_taxonomy().classes.first()
    one.colour = "#010203"
    one.save()
    one.refresh_from_db()
    assert one.colour == "#010203"


@pytest.mark.parametrize("field", ["weights", "weights_sha256", "snapshot_hash", "number", "kind"])
def test_a_model_version_never_changes(field):
    version = factories.make_version(factories.make_project())
    setattr(version, field, 99 if field == "number" else "other")
    with pytest.raises(ValueError, match="never changes"):
        version.save()


def test_a_round_that_is_over_leaves_room_for_the_next():
    project = factories.make_project()
    factories.make_round(project, state="cancelled", number=1)
    factories.make_round(project, state="done", number=2)
    factories.make_round(project, number=3)
    assert Round.objects.filter(project=project).count() == 3


def test_a_job_knows_how_long_it_took():
    now = timezone.now()
    job = factories.make_job(factories.make_project(), started_at=now, ended_at=now + timezone.timedelta(seconds=90))
    assert job.duration.total_seconds() == 90
    assert factories.make_job(job.project).duration is None


def test_patients_are_listed_by_code():
    project = factories.make_project()
    for code in ("P2", "P1"):
        factories.make_patient(project, code)
    assert [patient.code for patient in Patient.objects.filter(project=project)] == ["P1", "P2"]
