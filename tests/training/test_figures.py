import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.training.engine.judged import judge, random_tiles
from training.figures import FIGURES, Subject, draw

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
