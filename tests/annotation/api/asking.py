"""A program that uses the API with a token."""

from django.test import Client
from django.urls import reverse

from annotation.models import Project, Role, Scope, User
from tests import factories


class Program:
    """Asks in the name of a user; `scope` is its token's."""

    def __init__(self, user: User, scope: Scope = Scope.LEAD) -> None:
        self.user = user
        self.client = Client(headers={"Authorization": f"Bearer {factories.make_token(user, scope)}"})

    def get(self, name: str, *arguments: int, **query):
        return self.client.get(reverse(f"api_{name}", args=arguments), query)

    def send(self, name: str, *arguments: int, body=None, method: str = "post"):
        address = reverse(f"api_{name}", args=arguments)
        return getattr(self.client, method)(address, body, content_type="application/json")

    def read(self, name: str, *arguments: int, **query):
        """The answer's JSON, which must be there."""
        response = self.get(name, *arguments, **query)
        assert response.status_code == 200, response.content
        return response.json()

    def keys(self, name: str, *arguments: int, **query) -> list[int]:
        """The ids of a list's first page."""
        return [row["id"] for row in self.read(name, *arguments, **query)["results"]]


def program(project: Project, role: Role = Role.LEAD, scope: Scope = Scope.LEAD, name: str = "") -> Program:
    """A program of a new member of the project."""
    return Program(factories.make_member(project, role, name), scope)
