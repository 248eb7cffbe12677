"""Projects, taxonomies, members and the locked test set."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from django.db import transaction
from django.utils import timezone

from annotation.models import CellClass, Membership, Patient, Project, Purpose, Role, Task, Taxonomy, Tile, User
from annotation.services.events import record
from annotation.taxonomies import TaxonomySpec, check_taxonomy, colour_problem, hotkey_problem


class NotAllowed(ValueError):
    """The request is understood, but a rule of the project forbids it; the text says which."""


class KeysRefused(ValueError):
    """Hotkeys or colours that a taxonomy cannot have; `problems` lists (class number, attribute, reason)."""

    def __init__(self, problems: Sequence[tuple[int, str, str]]) -> None:
        super().__init__("; ".join(f"class {number}: {reason}" for number, _, reason in problems))
        self.problems = list(problems)


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
def change_keys(*, taxonomy: Taxonomy, keys: Mapping[int, str], colours: Mapping[int, str], user: User | None) -> int:
    """Give classes other hotkeys and colours ("#rrggbb"), both by class number; returns how many classes changed.

    Nothing else of a frozen taxonomy changes. Raises KeysRefused that lists every key that is no digit or letter, is
    the editor's own or would be used twice, and every colour that is none; then nothing is changed.
    """
    classes = list(taxonomy.classes.select_for_update())
    problems = _key_problems(classes, keys) + _colour_problems(colours)
    if problems:
        raise KeysRefused(problems)
    before = {one.pk: (one.hotkey, one.colour) for one in classes}
    for one in classes:
        one.hotkey = keys.get(one.number, one.hotkey)
        one.colour = colours.get(one.number, one.colour).lower()
    changed = [one for one in classes if before[one.pk] != (one.hotkey, one.colour)]
    _store_keys(changed)
    if changed:
        changes = {one.code: {"before": before[one.pk], "after": (one.hotkey, one.colour)} for one in changed}
        for project in taxonomy.projects.all():
            record(project=project, user=user, verb="changed keys", subject=taxonomy, classes=changes)
    return len(changed)


def _store_keys(classes: Sequence[CellClass]) -> None:
    # The database looks at one row after the other, and two keys may change places: each class first gets a key that
    # no class ever has (of Unicode's private area).
    wanted = [one.hotkey for one in classes]
    for one in classes:
        one.hotkey = chr(0xE000 + one.number)
    CellClass.objects.bulk_update(classes, ["hotkey"])
    for one, key in zip(classes, wanted, strict=True):
        one.hotkey = key
    CellClass.objects.bulk_update(classes, ["hotkey", "colour"])


def _key_problems(classes: Sequence[CellClass], keys: Mapping[int, str]) -> list[tuple[int, str, str]]:
    problems = []
    for number, key in keys.items():
        same = [one.code for one in classes if one.number != number and keys.get(one.number, one.hotkey) == key]
        reason = hotkey_problem(key) or (f"Used twice: {key} is also the key of {same[0]}." if same else "")
        if reason:
            problems.append((number, "hotkey", reason))
    return problems


def _colour_problems(colours: Mapping[int, str]) -> list[tuple[int, str, str]]:
    reasons = {number: colour_problem(colour) for number, colour in colours.items()}
    return [(number, "colour", reason) for number, reason in reasons.items() if reason]


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
