import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.training.engine.judged import judge, random_tiles
from training.curve_chart import AXES, CurvePoint
from training.figures import FIGURES, Subject, draw, draw_curve

CODES = ("BLA", "LYM", "BAS")


@pytest.fixture(scope="module")
def subject() -> Subject:
    metrics = judge(*random_tiles(1)).to_json()
    colours = ("#7f01f9", "#2e8b57", "#e1f200")
    return Subject("Model 1", list(zip(CODES, colours, strict=True)), [*CODES, "BG"], metrics)


def text_of(svg: bytes) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_whole_svg_with_title_and_classes_as_text(name: str, subject: Subject, tmp_path: Path) -> None:
    text = text_of(draw(name, subject, "svg", settings_folder=tmp_path))
    assert "Model 1" in text
    assert all(code in text for code in CODES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_pdf(name: str, subject: Subject, tmp_path: Path) -> None:
    content = draw(name, subject, "pdf", settings_folder=tmp_path)
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")


def test_the_same_figure_has_the_same_bytes(subject: Subject, tmp_path: Path) -> None:
    first, second = (draw("confusion", subject, "svg", settings_folder=tmp_path) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", FIGURES)
def test_an_evaluation_of_before_there_were_curves_has_figures(name: str, subject: Subject, tmp_path: Path) -> None:
    old = dict(subject.metrics)
    old["classes"] = [
        {key: value for key, value in row.items() if key not in ("curve", "ap50_95")} | {"ap50": None}
        for row in old["classes"]
    ]
    poor = Subject(subject.title, subject.classes, subject.codes, old)
    assert "Model 1" in text_of(draw(name, poor, "svg", settings_folder=tmp_path))


def test_there_is_no_other_figure(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        draw("histogram", subject, "svg", settings_folder=tmp_path)


POINTS = [
    CurvePoint(1, 0.31, 0.25, 0.4, expert_days=0.4, tiles=250, boxes=5020, alike=False),
    CurvePoint(2, 0.42, 0.35, 0.5, expert_days=0.9, tiles=500, boxes=9811),
    CurvePoint(4, 0.55, expert_days=1.1, tiles=750, boxes=15002, assisted=True),
]


@pytest.mark.parametrize("axis", AXES)
def test_the_curve_is_one_column_wide_and_says_what_it_shows(axis: str, tmp_path: Path) -> None:
    svg = draw_curve(POINTS, axis, "svg", settings_folder=tmp_path)
    text = text_of(svg)
    assert all(words in text for words in ("mAP@0.5", AXES[axis].label, "pre-labels"))
    width = ElementTree.fromstring(svg).get("width")
    assert float(width.removesuffix("pt")) == pytest.approx(85 / 25.4 * 72, abs=1)


@pytest.mark.parametrize("file_format", ["svg", "pdf"])
def test_the_same_curve_has_the_same_bytes(file_format: str, tmp_path: Path) -> None:
    first, second = (draw_curve(POINTS, "days", file_format, settings_folder=tmp_path) for _ in range(2))
    assert first == second
    assert draw_curve(POINTS[:2], "days", file_format, settings_folder=tmp_path) != first


def test_a_curve_does_not_change_how_other_figures_are_drawn(subject: Subject, tmp_path: Path) -> None:
    before = draw("confusion", subject, "svg", settings_folder=tmp_path)
    draw_curve(POINTS, "tiles", "svg", settings_folder=tmp_path)
    assert draw("confusion", subject, "svg", settings_folder=tmp_path) == before


def test_the_curve_has_no_other_axis(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        draw_curve(POINTS, "epochs", "svg", settings_folder=tmp_path)
