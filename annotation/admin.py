"""What is rare enough to have no page of its own."""

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest

from annotation.models import (
    Annotation,
    Author,
    Batch,
    CellClass,
    Event,
    Job,
    Membership,
    Patient,
    Project,
    Slide,
    Taxonomy,
    User,
)


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """To look at; written by services only."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


class Users(UserAdmin):  # type: ignore[type-arg]
    """Made and switched off, never deleted: they may hold tiles, lead projects, and have drawn boxes."""

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


admin.site.register(User, Users)
EVERY_OTHER = [Annotation, Author, Batch, CellClass, Event, Job, Membership, Patient, Project, Slide, Taxonomy]
admin.site.register(EVERY_OTHER, ReadOnly)
