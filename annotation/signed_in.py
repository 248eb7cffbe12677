"""Who asks: Django's sessions and users, found by prepared queries, since every request asks for both."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.contrib.sessions.models import Session
from django.utils import timezone

from annotation.models import User
from annotation.prepared import Prepared

SESSION = Prepared(lambda key: Session.objects.filter(session_key=key))
USER = Prepared(lambda key: User.objects.filter(pk=key))


class SessionStore(DatabaseSessionStore):
    """Settings name this module as the SESSION_ENGINE."""

    def _get_session_from_db(self) -> Session | None:
        found: Session | None = SESSION.get(self.session_key or "")
        if found is None or found.expire_date <= timezone.now():
            self._session_key = None
            return None
        return found


class UserBackend(ModelBackend):
    """Who may sign in with a password, as Django has it."""

    def get_user(self, user_id: Any) -> User | None:
        user: User | None = USER.get(user_id)
        return user if self.user_can_authenticate(user) else None
