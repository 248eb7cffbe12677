import threading

import pytest
from django.db import connection

from annotation.models import CellClass, Membership, Patient, Role, Task, TaskState, Taxonomy
from annotation.services.batches import claim_next
from annotation.services.projects import (
    NotAllowed,
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
