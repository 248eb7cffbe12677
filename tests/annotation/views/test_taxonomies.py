"""The taxonomy page, its one form, and the examples of a class."""

import re

import pytest
from django.urls import reverse

from annotation.models import Event, Role
from annotation.services.projects import create_project, create_taxonomy
from annotation.taxonomies import ClassSpec, TaxonomySpec
from tests import factories

pytestmark = pytest.mark.django_db

LONG = TaxonomySpec(
    "36 classes",
    tuple(
        ClassSpec(f"C{number:02}", f"cell {number}", f"#0000{number:02x}", key)
        for number, key in enumerate("1234567890abcdegijkmopqrtuxyABCDEFGH")
    ),
)


@pytest.fixture
def project():
    return factories.make_project()


@pytest.fixture
def lead(project, client):
    user = factories.make_member(project, Role.LEAD, "lead")
    client.force_login(user)
    return user


def page_of(client, project):
    response = client.get(reverse("project_taxonomy", args=[project.pk]))
    assert response.status_code == 200
    return response.content.decode()


def filled_in(project, **changes):
    """The form as the page shows it, with changes such as hotkey_0="q"."""
    fields = {}
    for one in project.taxonomy.classes.all():
        fields |= {f"hotkey-{one.number}": one.hotkey, f"colour-{one.number}": one.colour}
    return fields | {name.replace("_", "-"): value for name, value in changes.items()}


def send(client, project, **changes):
    return client.post(reverse("taxonomy_change", args=[project.pk]), filled_in(project, **changes))


def keys_of(project):
    return dict(project.taxonomy.classes.values_list("number", "hotkey"))


def cell_with(page, name):
    """The table cell around a field."""
    return next(cell for cell in re.findall(r"<td>.*?</td>", page, re.DOTALL) if f'name="{name}"' in cell)


# The page


@pytest.mark.parametrize("role", Role)
def test_every_member_sees_the_classes(client, project, role):
    factories.make_truth(factories.make_tile(project), (1, 10, 20, 30, 40), (1, 50, 20, 30, 40))
    client.force_login(factories.make_member(project, role))
    page = page_of(client, project)
    rows = [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)[1:]]
    assert [row.split(" counted")[0].split(" – ")[0] for row in rows] == [
        "0 NEU neutrophil granulocytic",
        "1 ERY erythroblast erythroid",
        "2 OTH other cell not trained on",
    ]
    assert "counted numerator" in rows[0]
    assert "counted denominator" in rows[1]
    assert "counted" not in rows[2]
    assert [row.split()[-1] for row in rows] == ["0", "2", "0"]
    assert 'aria-current="page">Taxonomy' in page


@pytest.mark.parametrize(("role", "fields"), [(Role.ANNOTATOR, 0), (Role.REVIEWER, 0), (Role.LEAD, 6)])
def test_only_a_lead_gets_fields(client, project, role, fields):
    client.force_login(factories.make_member(project, role))
    page = page_of(client, project)
    assert len(re.findall(r'<input[^>]+name="(?:hotkey|colour)-\d', page)) == fields
    assert ("Save hotkeys and colours" in page) is bool(fields)


def test_every_field_has_its_label_and_belongs_to_the_form(client, project, lead):
    page = page_of(client, project)
    fields = re.findall(r'<input[^>]+name="(?:hotkey|colour)-\d"[^>]*>', page)
    assert len(fields) == 6
    for field in fields:
        key = re.search(r'\bid="([^"]+)"', field).group(1)
        assert f'for="{key}"' in page
        assert 'form="keys"' in field
    assert 'id="keys"' in page


def test_a_key_with_shift_is_said_in_words(client, project):
    project.taxonomy.classes.filter(number=0).update(hotkey="Q")
    client.force_login(factories.make_member(project, Role.ANNOTATOR))
    assert "Shift Q" in page_of(client, project)


@pytest.mark.parametrize(("others", "words"), [(1, "1 other project: it changes too"), (2, "2 other projects: they")])
def test_it_says_how_many_other_projects_change_too_and_does_not_name_them(client, project, lead, others, words):
    names = [factories.make_project().name for _ in range(others)]
    page = " ".join(page_of(client, project).split())
    assert f"Also used by {words}" in page
    assert not [name for name in names if name in page]


def test_a_taxonomy_of_one_project_alone_says_nothing_of_others(client, project, lead):
    assert "Also used by" not in page_of(client, project)


def test_the_queries_do_not_grow_with_the_classes(client, lead, project, django_assert_max_num_queries):
    long = create_project(name="Long", taxonomy=create_taxonomy(spec=LONG), lead=lead)
    for one in (project, long):
        page_of(client, one)
        with django_assert_max_num_queries(10):
            page_of(client, one)


# The form


def test_the_form_as_the_page_shows_it_changes_nothing(client, project, lead):
    response = client.post(reverse("taxonomy_change", args=[project.pk]), filled_in(project), follow=True)
    assert "Nothing was changed" in response.content.decode()
    assert not Event.objects.filter(verb="changed keys").exists()


def test_a_lead_changes_keys_and_colours(client, project, lead):
    response = send(client, project, hotkey_0="Q", colour_1="#00FF00")
    assert response["Location"] == reverse("project_taxonomy", args=[project.pk])
    assert keys_of(project) == {0: "Q", 1: "2", 2: "o"}
    assert project.taxonomy.classes.get(number=1).colour == "#00ff00"
    assert "2 classes changed" in page_of(client, project)
    event = Event.objects.get(verb="changed keys")
    assert (event.project, event.user_name, set(event.data["classes"])) == (project, "lead", {"NEU", "ERY"})


def test_two_keys_change_places_in_one_save(client, project, lead):
    assert send(client, project, hotkey_0="2", hotkey_1="1").status_code == 302
    assert keys_of(project) == {0: "2", 1: "1", 2: "o"}


def test_36_classes_move_on_by_one_key(client, lead):
    long = create_project(name="Long", taxonomy=create_taxonomy(spec=LONG), lead=lead)
    keys = list(keys_of(long).values())
    moved = {f"hotkey_{number}": key for number, key in enumerate([*keys[1:], keys[0]])}
    assert send(client, long, **moved).status_code == 302
    assert list(keys_of(long).values()) == [*keys[1:], keys[0]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hotkey_0": "z"}, "The editor itself uses the key z"),
        ({"hotkey_0": "."}, "The editor itself uses the key ."),
        ({"hotkey_0": ""}, "one digit or one letter"),
        ({"hotkey_0": " "}, "one digit or one letter"),
        ({"hotkey_0": "ab"}, "one digit or one letter"),
        ({"hotkey_0": "ß"}, "one digit or one letter"),
        ({"hotkey_0": "\x00"}, "Null characters"),
        ({"hotkey_0": "2"}, "also the key of ERY"),
        ({"colour_0": "red"}, "#rrggbb"),
        ({"colour_0": "#12345"}, "#rrggbb"),
        ({"colour_0": ""}, "#rrggbb"),
        ({"colour_0": '"><script>'}, "#rrggbb"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field_and_nothing_is_saved(client, project, lead, change, words):
    before = list(project.taxonomy.classes.values())
    response = send(client, project, colour_2="#000001", **change)
    assert response.status_code == 422
    (name,) = (name.replace("_", "-") for name in change)
    page = response.content.decode()
    assert "Nothing was saved" in page
    assert words in cell_with(page, name)
    assert 'aria-invalid="true"' in cell_with(page, name)
    assert page.count('aria-invalid="true"') == (2 if "also" in words else 1)
    assert list(project.taxonomy.classes.values()) == before
    assert "<script>" not in cell_with(page, name)


def test_what_was_entered_is_still_there_after_an_error(client, project, lead):
    page = send(client, project, hotkey_0="z", hotkey_1="k").content.decode()
    assert 'value="z"' in cell_with(page, "hotkey-0")
    assert 'value="k"' in cell_with(page, "hotkey-1")


def test_fields_that_are_missing_change_nothing(client, project, lead):
    assert client.post(reverse("taxonomy_change", args=[project.pk]), {"hotkey-0": "q"}).status_code == 422
    assert keys_of(project)[0] == "1"


def test_codes_and_names_cannot_be_sent_along(client, project, lead):
    send(client, project, hotkey_0="q", code_0="XXX", name_0="other", number_0="7")
    one = project.taxonomy.classes.get(number=0)
    assert (one.code, one.name, one.hotkey) == ("NEU", "neutrophil", "q")


@pytest.mark.parametrize("role", [Role.ANNOTATOR, Role.REVIEWER])
def test_a_member_who_is_no_lead_changes_nothing(client, project, role):
    client.force_login(factories.make_member(project, role))
    assert send(client, project, hotkey_0="q").status_code == 403
    assert keys_of(project)[0] == "1"


def test_a_lead_of_another_project_with_the_same_taxonomy_changes_nothing_here(client, project, lead):
    other = factories.make_project()
    assert other.taxonomy == project.taxonomy
    assert send(client, other, hotkey_0="q").status_code == 404
    assert keys_of(project)[0] == "1"


# Examples of a class


def examples(client, project, number):
    return client.get(reverse("class_examples", args=[project.pk, number]))


def test_examples_show_what_the_class_looks_like(client, project, lead):
    slide = factories.make_slide(project)
    truth = factories.make_truth(slide.tiles.first(), (1, 10, 20, 30, 40), (0, 60, 20, 30, 40))
    box = truth.boxes.get(cell_class__number=1)
    assert examples(client, project, 1).json() == {
        "class": 1,
        "name": "erythroblast",
        "confirmed": 1,
        "examples": [
            {
                "box": box.pk,
                "crop": reverse("box_crop", args=[box.pk]),
                "slide": slide.name,
                "patient": slide.patient.code,
            }
        ],
    }


def test_at_most_twelve_examples_are_given_and_all_are_counted(client, project, lead):
    for _ in range(2):
        factories.make_truth(factories.make_tile(project), *[(0, 10 + step, 20, 30, 40) for step in range(10)])
    answer = examples(client, project, 0).json()
    assert (answer["confirmed"], len(answer["examples"])) == (20, 12)
    assert len({example["patient"] for example in answer["examples"][:2]}) == 2
    assert answer == examples(client, project, 0).json()


def test_a_class_without_boxes_has_no_examples(client, project, lead):
    answer = examples(client, project, 2).json()
    assert (answer["confirmed"], answer["examples"]) == (0, [])


@pytest.mark.parametrize("number", [3, 10**9, 10**30])
def test_there_are_no_examples_of_a_class_that_there_is_not(client, project, lead, number):
    assert examples(client, project, number).status_code == 404


def test_a_strangers_project_gives_no_examples(client, project, lead):
    assert examples(client, factories.make_project(), 0).status_code == 404


def test_the_queries_do_not_grow_with_the_examples(client, project, lead, django_assert_max_num_queries):
    for _ in range(6):
        factories.make_truth(factories.make_tile(project), (0, 10, 20, 30, 40), (0, 50, 20, 30, 40))
    with django_assert_max_num_queries(7):
        assert len(examples(client, project, 0).json()["examples"]) == 12
