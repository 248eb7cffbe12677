import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from annotation.models import Membership, Notice, NoticeKind, Role
from annotation.services.notices import gets_mail, notify
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def reader(client, project):
    reader = factories.make_member(project, name="reader")
    client.force_login(reader)
    return reader


def tell(project, number=1, path="/projects/new/"):
    notify(
        project=project,
        role=Role.ANNOTATOR,
        kind=NoticeKind.BATCH_READY,
        subject=f"batch {number}",
        text=f"Round {number} is ready.",
        path=path,
    )


def page(client, name="notices"):
    response = client.get(reverse(name))
    assert response.status_code == 200
    return response.content.decode()


def unread(user):
    return user.notices.filter(read_at__isnull=True).count()


def test_the_bell_counts_what_is_unread(client, project, reader):
    assert "bell-count" not in page(client, "home")
    tell(project, 1)
    tell(project, 2)
    assert '<span class="bell-count">2</span>' in page(client, "home")
    client.post(reverse("notice_read", args=[reader.notices.first().pk]))
    assert '<span class="bell-count">1</span>' in page(client, "home")


def test_the_queries_do_not_grow_with_the_notices(client, project, reader, django_assert_num_queries):
    tell(project)
    with CaptureQueriesContext(connection) as of_one:
        page(client)
    for number in range(2, 9):
        tell(project, number)
    with django_assert_num_queries(len(of_one)):
        page(client)


def test_signed_out_there_is_no_bell(client):
    assert "bell" not in client.get(reverse("login")).content.decode()


def test_without_a_notice_the_page_says_what_will_be_there(client, reader):
    shown = page(client)
    assert "No notice yet" in shown
    assert "Mark all as read" not in shown


def test_the_page_lists_the_newest_first(client, project, reader):
    for number in (1, 2):
        tell(project, number)
    shown = page(client)
    assert shown.index("Round 2 is ready.") < shown.index("Round 1 is ready.")
    assert project.name in shown


def test_many_are_on_several_pages(client, project, reader):
    for number in range(60):
        tell(project, number)
    assert page(client).count('class="unread"') == 50
    assert "1–50 of 60 notices" in page(client)


def test_following_a_notice_marks_it_as_read(client, project, reader):
    tell(project, path=reverse("project", args=[project.pk]))
    response = client.get(reverse("notice", args=[Notice.objects.get().pk]))
    assert response["Location"] == reverse("project", args=[project.pk])
    assert unread(reader) == 0


def test_marking_works_one_by_one_and_all_together(client, project, reader):
    for number in range(3):
        tell(project, number)
    response = client.post(reverse("notice_read", args=[reader.notices.first().pk]))
    assert response["Location"] == reverse("notices")
    assert unread(reader) == 2
    client.post(reverse("notices_read"))
    assert unread(reader) == 0
    assert "Mark" not in page(client)


@pytest.mark.parametrize(("name", "method"), [("notice", "get"), ("notice_read", "post")])
def test_the_notices_of_others_do_not_exist(client, project, reader, name, method):
    tell(project)
    client.force_login(factories.make_member(project, Role.LEAD))
    assert getattr(client, method)(reverse(name, args=[reader.notices.get().pk])).status_code == 404
    assert unread(reader) == 1


def test_a_notice_of_a_project_that_was_left_does_not_exist(client, project, reader):
    tell(project)
    Membership.objects.filter(user=reader).delete()
    assert client.get(reverse("notice", args=[reader.notices.get().pk])).status_code == 404
    assert "Round 1" not in page(client)
    assert "bell-count" not in page(client)


@pytest.mark.parametrize("name", ["notices_read", "notices_mail"])
def test_what_changes_rejects_get(client, reader, name):
    assert client.get(reverse(name)).status_code == 405


def test_marking_one_rejects_get(client, project, reader):
    tell(project)
    assert client.get(reverse("notice_read", args=[Notice.objects.get().pk])).status_code == 405


def test_who_is_not_signed_in_is_sent_to_the_sign_in(client):
    assert reverse("login") in client.get(reverse("notices"))["Location"]


def test_where_the_lab_sends_no_mail_there_is_no_choice(client, reader):
    assert "e-mail" not in page(client)


def test_a_user_without_an_address_is_told_who_enters_it(client, reader, settings):
    settings.MAIL_ON = True
    assert "An administrator enters it." in page(client)


def test_mails_are_switched_off_and_on(client, reader, settings):
    settings.MAIL_ON = True
    reader.email = "reader@lab.example"
    reader.save()
    assert "Notices are also mailed to reader@lab.example." in page(client)
    client.post(reverse("notices_mail"), {"wanted": "no"})
    reader.refresh_from_db()
    assert not gets_mail(reader)
    assert "Notices are not mailed to" in page(client)
    client.post(reverse("notices_mail"), {"wanted": "yes"})
    reader.refresh_from_db()
    assert gets_mail(reader)
