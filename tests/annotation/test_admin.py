"""The admin shows what the services have written, and writes nothing of it: what goes past them is in no event log."""

import pytest
from django.urls import reverse

from annotation.models import CellClass, Membership, Role, User
from annotation.services.batches import claim_next
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def superuser(client):
    client.force_login(factories.make_user(is_staff=True, is_superuser=True))
    return client


def refuses(client, row, values):
    name = row._meta.model_name
    for act in ("change", "delete"):
        address = reverse(f"admin:annotation_{name}_{act}", args=[row.pk])
        assert client.post(address, {"post": "yes", **values}).status_code == 403
    assert client.get(reverse(f"admin:annotation_{name}_add")).status_code == 403
    assert client.get(reverse(f"admin:annotation_{name}_change", args=[row.pk])).status_code == 200


def test_a_role_is_given_on_the_members_page_alone(superuser):
    project = factories.make_project()
    factories.make_member(project, Role.ANNOTATOR, "reader")
    membership = Membership.objects.get()
    refuses(superuser, membership, {"role": Role.LEAD, "user": membership.user_id, "project": project.pk})
    assert Membership.objects.get().role == Role.ANNOTATOR


def test_classes_and_taxonomies_stay_as_they_are(superuser):
    project = factories.make_project()
    before = list(CellClass.objects.values())
    refuses(superuser, project.taxonomy.classes.first(), {"name": "other"})
    refuses(superuser, project.taxonomy, {"name": "other"})
    assert list(CellClass.objects.values()) == before


def test_a_user_is_switched_off_and_never_deleted(superuser):
    """Not even one who holds a tile, which a deletion would leave leased to nobody."""
    project = factories.make_project()
    reader = factories.make_member(project, Role.ANNOTATOR, "reader")
    batch = factories.make_batch(project, factories.make_slide(project, tiles=1).tiles.all())
    claim_next(batch=batch, reader=reader)
    chosen = {"action": "delete_selected", "_selected_action": [reader.pk], "post": "yes"}
    superuser.post(reverse("admin:annotation_user_changelist"), chosen)
    address = reverse("admin:annotation_user_delete", args=[reader.pk])
    assert superuser.post(address, {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=reader.pk).exists()
