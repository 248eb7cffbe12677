"""Making, revoking and recognising the tokens of the API."""

import hashlib
import secrets
from datetime import date

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from annotation.models import ApiToken, Scope, User
from annotation.services.events import record

PREFIX = "marrow_"  # so that a token that lies somewhere is known for what it is
SECRET_BYTES = 32
SHOWN = 12
MOST_TOKENS = 50


class TooManyTokens(ValueError):
    """The user has as many working tokens as one may have."""


@transaction.atomic
def make_token(*, user: User, name: str, scope: Scope, expires_on: date | None = None) -> tuple[ApiToken, str]:
    """Make a token; returns its row and the token itself, which nobody can ever look up again.

    Raises TooManyTokens.
    """
    if working_tokens().filter(user=user).count() >= MOST_TOKENS:
        raise TooManyTokens(f"You have {MOST_TOKENS} tokens: revoke some that are no longer needed.")
    secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    token = ApiToken.objects.create(
        user=user,
        name=name,
        scope=scope,
        beginning=secret[:SHOWN],
        digest=_digest(secret),
        expires_on=expires_on,
    )
    until = expires_on.isoformat() if expires_on else None
    record(project=None, user=user, verb="made token", subject=token, scope=scope, expires_on=until)
    return token, secret


@transaction.atomic
def revoke_token(*, token: ApiToken, user: User) -> bool:
    """The token works no longer, from now on. False if it was revoked before."""
    changed = ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())
    if changed:
        record(project=None, user=user, verb="revoked token", subject=token, scope=token.scope)
    return bool(changed)


def recognise_token(secret: str) -> ApiToken | None:
    """The working token that this is, with its user, marked as used today; None if it is none.

    A token does not work once it is revoked, after its last day, or while its user is switched off.
    """
    # The token is random and long: its plain digest cannot be guessed from, and finds it in one look-up.
    token = working_tokens().select_related("user").filter(digest=_digest(secret), user__is_active=True).first()
    today = timezone.localdate()
    if token is not None and token.last_used_on != today:
        ApiToken.objects.filter(pk=token.pk).update(last_used_on=today)
        token.last_used_on = today
    return token


def working_tokens() -> QuerySet[ApiToken]:
    """Those that are neither revoked nor expired."""
    lasting = Q(expires_on=None) | Q(expires_on__gte=timezone.localdate())
    return ApiToken.objects.filter(lasting, revoked_at=None)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
