"""Addresses of this site, for those who read them elsewhere."""

from django.conf import settings


def address_of(path: str) -> str:
    """The path with the site's origin where the lab has said which one it is."""
    origin = settings.CSRF_TRUSTED_ORIGINS[0] if settings.CSRF_TRUSTED_ORIGINS else ""
    return path if "*" in origin else f"{origin}{path}"
