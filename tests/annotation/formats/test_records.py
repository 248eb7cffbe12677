import pickle

import pytest

from annotation.formats.records import FormatError, LabelledTile, Problem


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../up",
        "a/b",
        "a\\b",
        ".hidden",
        "end.",
        "end ",
        " start",
        "a\nb",
        "a\x00b",
        "c:",
        "NUL",
        "com1.x",
        "classes",
    ],
)
def test_it_rejects_a_name_that_is_not_a_safe_file_stem(name: str) -> None:
    with pytest.raises(FormatError):
        LabelledTile(name, 64, 64, ())


@pytest.mark.parametrize("name", ["P01_x1024_y512", "image (1)", "Prüfung-3.v2", "x" * 200])
def test_it_accepts_names_that_people_use(name: str) -> None:
    assert LabelledTile(name, 64, 64, ()).name == name


@pytest.mark.parametrize(
    "changes", [{"width": 0}, {"height": -1}, {"split": "pool"}, {"suffix": "/../x"}, {"suffix": ""}]
)
def test_it_rejects_a_tile_that_no_format_can_hold(changes: dict[str, object]) -> None:
    fields: dict[str, object] = {"name": "a", "width": 64, "height": 64, "boxes": ()}
    with pytest.raises(FormatError):
        LabelledTile(**(fields | changes))  # type: ignore[arg-type]


def test_a_name_too_long_for_a_file_system_is_rejected_by_bytes() -> None:
    with pytest.raises(FormatError, match="200 bytes"):
        LabelledTile("é" * 101, 64, 64, ())


def test_an_error_shows_the_first_problems_and_keeps_all() -> None:
    error = FormatError(Problem("a.txt", f"reason {line}", line) for line in range(1, 31))
    assert len(error.problems) == 30
    assert str(error).startswith("30 problems:\n- a.txt, line 1: reason 1\n")
    assert "line 20" in str(error)
    assert "line 21" not in str(error)
    assert str(error).endswith("and 10 more")


def test_an_error_of_one_problem_is_one_line() -> None:
    assert str(FormatError([Problem("a.xml", "missing image size")])) == "a.xml: missing image size"


def test_an_error_survives_pickling_between_processes() -> None:
    error = pickle.loads(pickle.dumps(FormatError([Problem("a.txt", "bad", 3)])))
    assert error.problems == (Problem("a.txt", "bad", 3),)
    assert str(error) == "a.txt, line 3: bad"


def test_tiles_can_be_kept_in_a_set() -> None:
    assert len({LabelledTile("a", 1, 1, (), extra={"x": 1}), LabelledTile("a", 1, 1, (), extra={"x": 1})}) == 1
