from dataclasses import asdict, replace

import pytest
from django.urls import reverse

from annotation.models import Job, JobState, Role
from tests import factories
from training.models import Round, RoundState
from training.round_form import RoundForm
from training.services import rounds
from training.services.rounds import RoundSettings
from training.services.snapshots import take_snapshot
from training.views import rounds as views

pytestmark = pytest.mark.django_db

SETTINGS = RoundSettings(size=5, strategy="random", epochs=3, batch_size=4, seed=7)
FORM = {name: value for name, value in RoundForm.initial_of(SETTINGS).items() if value is not None} | {"mode": "manual"}


@pytest.fixture
def project(client):
    project = factories.make_project()
    client.force_login(factories.make_member(project, Role.LEAD, "lead"))
    return project


def begin(client, project, **data):
    return client.post(reverse("round_new", args=[project.pk]), FORM | data)


def post(client, name, round_):
    response = client.post(reverse(name, args=[round_.pk]), follow=True)
    round_.refresh_from_db()
    return response.content.decode()


def test_start_works(client, project):
    response = begin(client, project)
    round_ = Round.objects.get()
    assert response["Location"] == reverse("round", args=[round_.pk])
    assert (round_.state, round_.settings["size"], round_.settings["seed"]) == (RoundState.SELECTING, 5, 7)
    assert Job.objects.get().kind == "select"


def test_a_second_round_at_once_is_refused_with_a_text(client, project):
    begin(client, project)
    response = begin(client, project)
    assert response.status_code == 422
    assert "under way" in response.content.decode()
    assert Round.objects.count() == 1


def test_an_assisted_round_without_a_model_is_refused_with_a_text(client, project):
    response = begin(client, project, mode="assisted")
    assert response.status_code == 422
    assert "needs a model" in response.content.decode()


@pytest.mark.parametrize(
    "data",
    [
        {"size": 0},
        {"size": "x"},
        {"image_size": 321},
        {"epochs": 0},
        {"model": "other"},
        {"seed": -1},
        {"mode": ""},
        {"mosaic": 2},
        {"start_from": "file:gone.pt"},
    ],
)
def test_settings_that_cannot_be_are_refused(client, project, data):
    assert begin(client, project, **data).status_code == 422
    assert not Round.objects.exists()


def test_the_form_begins_with_the_last_rounds_settings(client, project):
    factories.make_round(project, state=RoundState.DONE, settings=asdict(replace(SETTINGS, size=77)))
    page = client.get(reverse("round_new", args=[project.pk])).content.decode()
    assert 'value="77"' in page
    assert "Start round 2" in page


def test_a_round_of_before_the_recipe_keeps_its_page(client, project):
    old = {
        "size": 5,
        "strategy": "rare",
        "model": "yolo11n",
        "epochs": 3,
        "image_size": 320,
        "batch_size": 4,
        "seed": 7,
    }
    round_ = factories.make_round(project, settings=old | {"from_previous": True})
    page = client.get(reverse("round", args=[round_.pk])).content.decode()
    assert "the current model" in page


def test_the_page_tells_what_differs_from_the_usual_recipe(client, project):
    settings = asdict(replace(SETTINGS, rotation=15.0, weights_file="lab.pt"))
    page = client.get(reverse("round", args=[factories.make_round(project, settings=settings).pk])).content.decode()
    assert "Rotation (degrees)" in page
    assert "lab.pt" in page
    assert "Mosaic" not in page


def test_the_page_names_the_classes_without_a_box(client, project):
    for tile in factories.make_slide(project, tiles=2).tiles.all():
        factories.make_truth(tile, (0, 10, 20, 30, 40))
    snapshot = take_snapshot(project=project, seed=0)
    round_ = factories.make_round(project, state=RoundState.TRAINING, snapshot=snapshot)
    facts = dict(client.get(reverse("round", args=[round_.pk])).context["settings"])
    assert facts["No box to train on"] == "erythroblast"


def annotating(project):
    batch = factories.make_batch(project)
    return factories.make_round(project, batch=batch)


def test_close_works(client, project):
    round_ = annotating(project)
    factories.submit_task(round_.batch.tasks.first(), factories.make_member(project))
    post(client, "round_close", round_)
    assert (round_.state, round_.job.kind) == (RoundState.CLOSING, "snapshot")


def test_a_round_without_work_is_not_closed(client, project):
    round_ = annotating(project)
    assert "No tile of this round" in post(client, "round_close", round_)
    assert round_.state == RoundState.ANNOTATING


def test_closing_twice_says_so(client, project):
    round_ = annotating(project)
    factories.submit_task(round_.batch.tasks.first(), factories.make_member(project))
    post(client, "round_close", round_)
    assert "is not being annotated" in post(client, "round_close", round_)


def test_retry_works(client, project):
    job = factories.make_job(project, state=JobState.FAILED)
    round_ = factories.make_round(project, state=RoundState.TRAINING, job=job)
    post(client, "round_retry", round_)
    job.refresh_from_db()
    assert job.state == JobState.QUEUED


def test_a_step_that_has_not_failed_is_not_tried_again(client, project):
    job = factories.make_job(project, state=JobState.RUNNING)
    round_ = factories.make_round(project, state=RoundState.TRAINING, job=job)
    assert "has failed" in post(client, "round_retry", round_)


def test_cancel_works_once(client, project):
    round_ = annotating(project)
    post(client, "round_cancel", round_)
    assert round_.state == RoundState.CANCELLED
    assert "is over" in post(client, "round_cancel", round_)


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
@pytest.mark.parametrize("name", ["round_close", "round_retry", "round_cancel"])
def test_it_needs_a_lead(client, project, name, role):
    round_ = annotating(project)
    client.force_login(factories.make_member(project, role))
    assert client.post(reverse(name, args=[round_.pk])).status_code == 403
    round_.refresh_from_db()
    assert round_.state == RoundState.ANNOTATING


def test_the_first_round_proposes_more_where_there_is_a_gpu(client, project, tmp_path, monkeypatch):
    address = reverse("round_new", args=[project.pk])
    monkeypatch.setattr(rounds, "GPU_DEVICE", tmp_path / "nvidia0")
    assert client.get(address).context["form"]["image_size"].value() == 320
    rounds.GPU_DEVICE.touch()
    assert client.get(address).context["form"]["image_size"].value() == 640


class TestReview:
    """The page of a batch that waits for its release."""

    @pytest.fixture
    def tiles(self, project):
        return list(factories.make_slide(project, patient=factories.make_patient(project, "P07")).tiles.all())

    @pytest.fixture
    def round_(self, project, tiles):
        factories.make_version(project, current=True)
        factories.make_truth(tiles[8], (1, 10, 20, 30, 40), (1, 60, 20, 30, 40))
        batch = factories.make_batch(project, tiles[:6], state="draft", expected={"0": 3.5, "1": 0.5, "2": 0.0})
        settings = asdict(replace(SETTINGS, strategy="rare", hold=True))
        return factories.make_round(
            project, state=RoundState.REVIEWING, batch=batch, mode="assisted", settings=settings
        )

    def swap(self, client, round_, task, tile=None, **options):
        address = reverse("round_swap", args=[round_.pk, task.pk])
        return client.post(address, {"tile": tile or task.tile_id, "page": "1"}, **options)

    def test_it_shows_what_the_batch_would_bring(self, client, round_):
        response = client.get(reverse("round", args=[round_.pk]))
        page = response.content.decode()
        assert page.count("Swap out</button>") == 6
        assert "Release the batch" in page
        assert page.count("by chance") == 6
        rows = {row["code"]: (row["expected"], row["count"]) for row in response.context["class_counts"]}
        assert rows["NEU"] == (3.5, 0)
        assert rows["ERY"] == (0.5, 2)
        assert response.context["patients"] == [{"code": "P07", "tiles": 6, "audits": 0, "confirmed": 1}]
        steps = [(step["name"], step["state"]) for step in response.context["steps"]]
        assert steps[:3] == [("Select", "done"), ("Release", "current"), ("Pre-label", "waiting")]

    def test_a_batch_that_nobody_has_to_look_at_has_no_such_step(self, client, project):
        page = client.get(reverse("round", args=[annotating(project).pk]))
        assert "Release" not in [step["name"] for step in page.context["steps"]]

    def test_many_tiles_come_in_pages(self, client, round_, monkeypatch):
        monkeypatch.setattr(views, "REVIEWED_PER_PAGE", 4)
        response = client.get(reverse("round", args=[round_.pk]), {"page": 2})
        assert [task.position for task in response.context["tasks"]] == [4, 5]
        assert "page 2 of 2" in response.content.decode()

    def test_release_works_once(self, client, round_):
        post(client, "round_release", round_)
        assert (round_.state, round_.job.kind) == (RoundState.PRE_LABELLING, "pre_label")
        assert "does not wait to be released" in post(client, "round_release", round_)

    def test_swap_works_without_script(self, client, round_, tiles):
        task = round_.batch.tasks.first()
        response = self.swap(client, round_, task)
        assert response["Location"] == f"{reverse('round', args=[round_.pk])}?page=1#task-{task.pk}"
        assert round_.batch.tasks.get(pk=task.pk).tile in tiles[6:8]

    def test_swap_works_in_place(self, client, round_):
        task = round_.batch.tasks.first()
        page = self.swap(client, round_, task, headers={"HX-Request": "true"}).content.decode()
        task.refresh_from_db()
        assert page.count(f'id="task-{task.pk}"') == 1
        assert f'value="{task.tile_id}"' in page
        assert 'id="review-counts" hx-swap-oob="true"' in page
        assert "<html" not in page

    def test_a_tile_that_somebody_else_has_swapped_meanwhile_stays(self, client, round_):
        task = round_.batch.tasks.first()
        self.swap(client, round_, task)
        now = round_.batch.tasks.get(pk=task.pk).tile
        response = self.swap(client, round_, task, follow=True)
        assert "another tile by now" in response.content.decode()
        assert round_.batch.tasks.get(pk=task.pk).tile == now

    def test_after_the_release_nothing_is_swapped(self, client, round_):
        post(client, "round_release", round_)
        task = round_.batch.tasks.first()
        response = self.swap(client, round_, task, headers={"HX-Request": "true"})
        assert response["HX-Refresh"] == "true"
        assert "does not wait to be released" in client.get(reverse("round", args=[round_.pk])).content.decode()
        assert round_.batch.tasks.get(pk=task.pk).tile == task.tile

    def test_a_task_of_another_batch_is_not_found(self, client, project, round_):
        assert self.swap(client, round_, factories.make_task(project)).status_code == 404

    @pytest.mark.parametrize(("role", "status"), [(Role.ANNOTATOR, 403), (Role.REVIEWER, 403), (None, 404)])
    def test_only_a_lead_swaps_and_releases(self, client, project, round_, role, status):
        client.force_login(factories.make_member(project, role) if role else factories.make_user())
        task = round_.batch.tasks.first()
        assert self.swap(client, round_, task).status_code == status
        assert client.post(reverse("round_release", args=[round_.pk])).status_code == status
        round_.refresh_from_db()
        assert (round_.state, round_.batch.tasks.get(pk=task.pk).tile) == (RoundState.REVIEWING, task.tile)

    def test_a_reader_sees_the_batch_without_buttons(self, client, project, round_):
        client.force_login(factories.make_member(project))
        page = client.get(reverse("round", args=[round_.pk])).content.decode()
        assert page.count("by chance") == 6
        assert "Swap out</button>" not in page
        assert "Release the batch" not in page

    @pytest.mark.parametrize("name", ["round_release", "round_swap"])
    def test_it_rejects_get(self, client, round_, name):
        keys = [round_.pk, round_.batch.tasks.first().pk] if name == "round_swap" else [round_.pk]
        assert client.get(reverse(name, args=keys)).status_code == 405


def test_the_selection_reaches_the_round(client, project):
    factories.make_version(project, current=True)
    begin(client, project, mode="assisted", strategy="mix", mix_rare=70, audit=15, quota_1=12, hold="on")
    settings = Round.objects.get().settings
    assert (settings["mix"], settings["audit"], settings["quotas"], settings["hold"]) == (
        {"rare": 70},
        15,
        {"1": 12},
        True,
    )
    facts = dict(client.get(reverse("round", args=[Round.objects.get().pk])).context["settings"])
    assert facts["Selection"] == "70 % rare cells first, 30 % random"
    assert facts["Quotas"] == "12 erythroblast"


def test_the_page_of_a_manual_round_says_how_its_tiles_are_chosen(client, project):
    begin(client, project, strategy="rare")
    round_ = Round.objects.get()

    def told():
        return dict(client.get(reverse("round", args=[round_.pk])).context["settings"])["Selection"]

    assert told() == "random"  # there is no model
    factories.make_version(project, current=True)
    assert told() == "rare cells first"
    round_.batch = factories.make_batch(project)
    round_.save()
    assert told() == "random"  # it was chosen before there was one
    round_.batch.expected = {"0": 1.5}
    round_.batch.save()
    assert told() == "rare cells first"


def test_an_assisted_round_is_held_unless_the_lead_wants_otherwise(client, project):
    address = reverse("round_new", args=[project.pk])
    assert not client.get(address).context["form"]["hold"].value()
    factories.make_version(project, current=True)
    for number in (1, 2):
        factories.make_round(project, number=number, state=RoundState.DONE)
    form = client.get(address).context["form"]
    assert (form["hold"].value(), form["strategy"].value()) == (True, "rare")
    settings = asdict(replace(SETTINGS, strategy="diverse"))
    factories.make_round(project, number=3, state=RoundState.DONE, mode="assisted", settings=settings)
    form = client.get(address).context["form"]
    assert (form["hold"].value(), form["strategy"].value()) == (False, "diverse")


def test_the_form_shows_examples_of_each_class(client, project):
    truth = factories.make_truth(factories.make_tile(project), (1, 10, 20, 30, 40))
    page = client.get(reverse("round_new", args=[project.pk])).content.decode()
    assert reverse("box_crop", args=[truth.boxes.get().pk]) in page
    assert 'name="like_boxes"' in page
    assert "1 confirmed" in page


def test_without_a_confirmed_cell_there_is_nothing_to_look_for(client, project):
    response = begin(client, project, strategy="like")
    page = response.content.decode()
    assert response.status_code == 422
    assert "No cell is confirmed yet." in page
    assert "Choose a class, or some cells" in page
