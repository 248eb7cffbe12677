"""Who asks: a token in the header `Authorization: Bearer ...`, and what it may do."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from annotation.access import require_scope
from annotation.models import ApiToken, Scope, User
from annotation.services.tokens import recognise_token

KEYWORD = b"bearer"


class TokenAuthentication(BaseAuthentication):
    """Sets `request.user` to the token's user and `request.auth` to the token. A session does not count here."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        words = get_authorization_header(request).split()
        if not words or words[0].lower() != KEYWORD:
            return None
        token = recognise_token(words[1].decode("latin-1")) if len(words) == 2 else None
        if token is None:
            raise AuthenticationFailed("The token is unknown, revoked or expired.")
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class HasScope(BasePermission):
    """Reading needs the scope read; what else a view does needs the scope that its `scopes` names for the method.

    HEAD is answered by what answers GET, and needs what GET needs.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        if not isinstance(request.auth, ApiToken):
            return False
        method = "GET" if request.method == "HEAD" else request.method
        usual = Scope.READ if method in SAFE_METHODS else Scope.LEAD
        require_scope(request.auth, getattr(view, "scopes", {}).get(method, usual))
        return True


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the description names it."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A token of yours, from the page API tokens."}
