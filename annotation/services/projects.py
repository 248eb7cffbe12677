"""Projects, taxonomies, members and the locked test set."""

from dataclasses import asdict

from django.db import transaction
from django.utils import timezone

from annotation.models import CellClass, Membership, Patient, Project, Purpose, Role, Task, Taxonomy, Tile, User
from annotation.services.events import record
from annotation.taxonomies import TaxonomySpec, check_taxonomy


class NotAllowed(ValueError):
    """The request is understood, but a rule of the project forbids it; the text says which."""


@transaction.atomic
def create_taxonomy(*, spec: TaxonomySpec) -> Taxonomy:
    """Store a taxonomy and freeze it; the same list again is the same taxonomy, another of its name a new version.

    Raises TaxonomyError.
    """
    check_taxonomy(spec)
    newest = Taxonomy.objects.filter(name=spec.name).order_by("-version").first()
    if newest is not None:
        wanted = [(number, one.code, one.name) for number, one in enumerate(spec.classes)]
        if list(newest.classes.values_list("number", "code", "name")) == wanted:
            return newest
    taxonomy = Taxonomy.objects.create(name=spec.name, version=newest.version + 1 if newest else 1)
    for number, one in enumerate(spec.classes):
        CellClass.objects.create(taxonomy=taxonomy, number=number, **asdict(one))
    taxonomy.frozen_at = timezone.now()
    taxonomy.save(update_fields=["frozen_at"])
    return taxonomy


@transaction.atomic
def create_project(*, name: str, taxonomy: Taxonomy, lead: User | None) -> Project:
    """Make a project whose maker is its lead."""
    project = Project.objects.create(name=name, taxonomy=taxonomy)
    if lead is not None:
        Membership.objects.create(project=project, user=lead, role=Role.LEAD)
    record(project=project, user=lead, verb="made project", subject=project)
    return project


@transaction.atomic
def set_member(*, project: Project, member: User, role: Role, user: User | None) -> Membership:
    """Add a member or change a member's role. Raises NotAllowed if it would leave the project without a lead."""
    if role != Role.LEAD:
        _keep_a_lead(project, member)
    membership, _ = Membership.objects.update_or_create(project=project, user=member, defaults={"role": role})
    record(project=project, user=user, verb="set role", subject=member, role=role.value)
    return membership


@transaction.atomic
def remove_member(*, membership: Membership, user: User | None) -> None:
    """Take a member out; the tiles that they hold go back to the others, what they submitted stays.

    Raises NotAllowed for the last lead.
    """
    _keep_a_lead(membership.project, membership.user)
    Task.objects.filter(batch__project=membership.project, reader=membership.user, state="leased").update(
        state="open", reader=None, leased_until=None
    )
    Task.objects.filter(batch__project=membership.project, reader=membership.user, state="open").update(reader=None)
    record(project=membership.project, user=user, verb="removed member", subject=membership.user)
    membership.delete()


def _keep_a_lead(project: Project, leaving: User) -> None:
    leads = project.memberships.select_for_update().filter(role=Role.LEAD)
    held = [membership.user_id for membership in leads]
    if held == [leaving.pk]:
        raise NotAllowed(f"{leaving} is the only lab lead of {project}: make another member lead first.")


@transaction.atomic
def set_locked(*, patient: Patient, locked: bool, user: User | None) -> None:
    """Put a patient into the locked test set or take one out.

    Raises NotAllowed when the patient's tiles have been in a batch: a test set that changes, or that training has
    seen, measures nothing.
    """
    used = Task.objects.filter(tile__slide__patient=patient).select_related("batch").first()
    if used is not None:
        raise NotAllowed(f"Tiles of patient {patient} are in the batch {used.batch}: this can no longer change.")
    begun = patient.project.batches.filter(purpose=Purpose.TRAINING).exists()
    if begun and Tile.objects.filter(slide__patient=patient, truth__isnull=False).exists():
        raise NotAllowed(f"Patient {patient} has labels that a model may have learned from: this can no longer change.")
    Patient.objects.filter(pk=patient.pk).update(locked=locked)
    record(project=patient.project, user=user, verb="locked" if locked else "unlocked", subject=patient)
