import threading

import pytest
from django.db import connection

from annotation.models import CellClass, Event, Membership, Patient, Role, Task, TaskState, Taxonomy
from annotation.services.batches import claim_next
from annotation.services.projects import (
    KeysRefused,
    NotAllowed,
    change_keys,
    create_project,
    create_taxonomy,
    remove_member,
    set_locked,
    set_member,
)
from annotation.taxonomies import HCT, ClassSpec, TaxonomyError, TaxonomySpec
from tests import factories

pytestmark = pytest.mark.django_db


def membership(project, user):
    return Membership.objects.get(project=project, user=user)


def test_the_maker_of_a_project_is_its_lead():
    user = factories.make_user()
    project = create_project(name="Marrow", taxonomy=factories.make_taxonomy(), lead=user)
    assert membership(project, user).role == Role.LEAD


def test_a_member_has_one_role_that_can_change():
    project, user = factories.make_project(), factories.make_user()
    set_member(project=project, member=user, role=Role.ANNOTATOR, user=None)
    set_member(project=project, member=user, role=Role.REVIEWER, user=None)
    assert membership(project, user).role == Role.REVIEWER


def test_the_last_lead_cannot_be_removed():
    lead = factories.make_user()
    project = factories.make_project(lead=lead)
    factories.make_member(project)
    with pytest.raises(NotAllowed, match="only lab lead"):
        remove_member(membership=membership(project, lead), user=lead)


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
def test_the_last_lead_cannot_be_demoted(role):
    lead = factories.make_user()
    project = factories.make_project(lead=lead)
    with pytest.raises(NotAllowed):
        set_member(project=project, member=lead, role=role, user=lead)
    assert membership(project, lead).role == Role.LEAD


def test_one_of_two_leads_can_go():
    lead = factories.make_user()
    project = factories.make_project(lead=lead)
    factories.make_member(project, Role.LEAD)
    remove_member(membership=membership(project, lead), user=lead)
    assert not Membership.objects.filter(project=project, user=lead).exists()


def test_the_last_lead_may_be_named_lead_again():
    lead = factories.make_user()
    project = factories.make_project(lead=lead)
    set_member(project=project, member=lead, role=Role.LEAD, user=lead)
    assert membership(project, lead).role == Role.LEAD


@pytest.mark.django_db(transaction=True)
def test_two_leads_who_remove_each_other_at_once_leave_one():
    project = factories.make_project()
    leads = [factories.make_member(project, Role.LEAD) for _ in range(2)]
    memberships = [membership(project, lead) for lead in leads]
    start = threading.Barrier(2)

    def remove(one):
        start.wait()
        try:
            remove_member(membership=one, user=None)
        except NotAllowed:
            pass
        finally:
            connection.close()

    threads = [threading.Thread(target=remove, args=[one]) for one in memberships]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Membership.objects.filter(project=project, role=Role.LEAD).count() == 1


def test_the_tiles_of_a_removed_member_go_back_and_their_work_stays():
    project = factories.make_project()
    user = factories.make_member(project)
    batch = factories.make_batch(project)
    first, second = batch.tasks.all()[:2]
    annotation = factories.submit_task(first, user)
    Task.objects.filter(pk=second.pk).update(reader=user)
    leased = claim_next(batch=batch, reader=user)
    remove_member(membership=membership(project, user), user=None)
    leased.refresh_from_db()
    assert (leased.state, leased.reader, leased.leased_until) == (TaskState.OPEN, None, None)
    assert annotation.author.user == user


def test_a_patient_is_locked_and_unlocked_before_the_first_batch():
    patient = factories.make_patient(factories.make_project())
    for locked in (True, False):
        set_locked(patient=patient, locked=locked, user=None)
        patient.refresh_from_db()
        assert patient.locked is locked


def test_a_patient_whose_tiles_were_in_a_batch_stays_as_it_is():
    project = factories.make_project()
    slide = factories.make_slide(project)
    factories.make_batch(project, slide.tiles.all()[:1])
    with pytest.raises(NotAllowed, match="can no longer change"):
        set_locked(patient=slide.patient, locked=True, user=None)
    assert not Patient.objects.get(pk=slide.patient_id).locked


def test_a_patient_with_labels_stays_as_it_is_once_training_has_begun():
    project = factories.make_project()
    labelled = factories.make_slide(project)
    factories.make_truth(labelled.tiles.first())
    factories.make_batch(project)
    with pytest.raises(NotAllowed, match="has labels"):
        set_locked(patient=labelled.patient, locked=True, user=None)


def test_a_labelled_patient_can_be_locked_before_the_first_batch():
    slide = factories.make_slide(factories.make_project())
    factories.make_truth(slide.tiles.first())
    set_locked(patient=slide.patient, locked=True, user=None)
    assert Patient.objects.get(pk=slide.patient_id).locked


def test_a_taxonomy_is_stored_in_order_and_frozen():
    taxonomy = create_taxonomy(spec=HCT)
    assert taxonomy.frozen_at is not None
    assert [(one.number, one.name) for one in taxonomy.classes.all()] == [
        (number, one.name) for number, one in enumerate(HCT.classes)
    ]


def test_the_same_list_again_is_the_same_taxonomy():
    assert create_taxonomy(spec=HCT) == create_taxonomy(spec=HCT)
    assert CellClass.objects.count() == 19


def test_a_changed_list_of_the_same_name_is_a_new_version():
    first = create_taxonomy(spec=HCT)
    longer = TaxonomySpec(HCT.name, (*HCT.classes, ClassSpec("NEW", "new cell", "#123456", "y")))
    second = create_taxonomy(spec=longer)
    assert (first.version, second.version) == (1, 2)
    assert Taxonomy.objects.count() == 2


def test_a_list_that_is_not_valid_leaves_nothing():
    twice = TaxonomySpec("Twice", (HCT.classes[0], HCT.classes[0]))
    with pytest.raises(TaxonomyError):
        create_taxonomy(spec=twice)
    assert not Taxonomy.objects.filter(name="Twice").exists()


# Hotkeys and colours: all of a frozen taxonomy that may change


def change(taxonomy, keys=None, colours=None, user=None):
    return change_keys(taxonomy=taxonomy, keys=keys or {}, colours=colours or {}, user=user)


def keys_of(taxonomy):
    return dict(taxonomy.classes.values_list("number", "hotkey"))


def test_keys_and_colours_change_and_nothing_else_does():
    taxonomy = factories.make_taxonomy()
    before = list(taxonomy.classes.values())
    assert change(taxonomy, {0: "q", 1: "2"}, {1: "#AABBCC", 2: "#444444"}) == 2
    expected = [row | {"hotkey": "q"} if row["number"] == 0 else row for row in before]
    expected = [row | {"colour": "#aabbcc"} if row["number"] == 1 else row for row in expected]
    assert list(taxonomy.classes.values()) == expected


def test_two_keys_change_places_in_one_go():
    taxonomy = factories.make_taxonomy()
    assert change(taxonomy, {0: "2", 1: "1"}) == 2
    assert keys_of(taxonomy) == {0: "2", 1: "1", 2: "o"}


def test_all_keys_of_a_long_list_move_on_by_one():
    taxonomy = create_taxonomy(spec=HCT)
    before = keys_of(taxonomy)
    after = {number: before[(number + 1) % len(before)] for number in before}
    assert change(taxonomy, after) == len(before)
    assert keys_of(taxonomy) == after


def test_a_letter_and_the_same_with_shift_are_two_keys():
    taxonomy = factories.make_taxonomy()
    change(taxonomy, {0: "q", 1: "Q", 2: "F"})
    assert keys_of(taxonomy) == {0: "q", 1: "Q", 2: "F"}


def test_a_change_is_in_the_log_of_every_project_that_it_concerns():
    first, second = factories.make_project(), factories.make_project()
    elsewhere = create_project(name="Elsewhere", taxonomy=create_taxonomy(spec=HCT), lead=None)
    assert first.taxonomy == second.taxonomy != elsewhere.taxonomy
    user = factories.make_user("the lead")
    change(first.taxonomy, {0: "q"}, {0: "#56b4e9"}, user)
    events = Event.objects.filter(verb="changed keys")
    assert {event.project_id for event in events} == {first.pk, second.pk}
    assert {event.user_name for event in events} == {"the lead"}
    assert events[0].data == {"classes": {"NEU": {"before": ["1", "#56b4e9"], "after": ["q", "#56b4e9"]}}}


def test_what_stays_as_it_is_is_not_in_the_log():
    taxonomy = factories.make_project().taxonomy
    assert change(taxonomy, keys_of(taxonomy), dict(taxonomy.classes.values_list("number", "colour"))) == 0
    assert not Event.objects.filter(verb="changed keys").exists()


@pytest.mark.parametrize(
    ("keys", "colours", "problems"),
    [
        ({0: "z"}, {}, {(0, "hotkey"): "The editor itself uses the key z"}),
        ({0: ""}, {}, {(0, "hotkey"): "one digit or one letter"}),
        ({0: "ab"}, {}, {(0, "hotkey"): "one digit or one letter"}),
        ({0: "ö"}, {}, {(0, "hotkey"): "one digit or one letter"}),
        ({0: "2"}, {}, {(0, "hotkey"): "also the key of ERY"}),
        ({0: "q", 1: "q"}, {}, {(0, "hotkey"): "key of ERY", (1, "hotkey"): "key of NEU"}),
        ({}, {2: "blue"}, {(2, "colour"): "written #rrggbb"}),
        ({}, {2: ""}, {(2, "colour"): "written #rrggbb"}),
        ({0: "."}, {0: "#12345"}, {(0, "hotkey"): "The editor", (0, "colour"): "#rrggbb"}),
    ],
)
def test_a_wrong_key_or_colour_changes_nothing_and_is_named(keys, colours, problems):
    project = factories.make_project()
    before = list(project.taxonomy.classes.values())
    with pytest.raises(KeysRefused) as refused:
        change(project.taxonomy, {2: "x"} | keys, {1: "#000001"} | colours)
    named = {(number, attribute): reason for number, attribute, reason in refused.value.problems}
    assert named.keys() == problems.keys()
    assert all(words in named[place] for place, words in problems.items())
    assert list(project.taxonomy.classes.values()) == before
    assert not Event.objects.filter(verb="changed keys").exists()


@pytest.mark.django_db(transaction=True)
def test_two_leads_who_change_keys_at_once_leave_each_class_its_own():
    taxonomy = factories.make_taxonomy()
    start, failures = threading.Barrier(2), []

    def swap(keys):
        start.wait()
        try:
            change(taxonomy, keys)
        except KeysRefused:
            pass
        except Exception as error:
            failures.append(error)
        finally:
            connection.close()

    wanted = [{0: "2", 1: "1"}, {0: "o", 2: "1"}]
    threads = [threading.Thread(target=swap, args=[keys]) for keys in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(keys_of(taxonomy).values()) == ["1", "2", "o"]
