"""The demo smears: what the files hold, and that each class looks like itself."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from django.core.management import CommandError, call_command

from annotation.slides.smear import CLASS_NAMES, draw_cell, draw_smear
from annotation.slides.smear_shapes import Sprite
from annotation.slides.smear_stain import choose_stain
from annotation.slides.smear_zones import ZoneMap, lay_out_zones, monolayer_tiles

SIDE = 1536


@pytest.fixture(scope="module")
def smear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_smear(tmp_path_factory.mktemp("smears"), patient="D01", seed=0, width=SIDE, height=SIDE)


@pytest.fixture(scope="module")
def truth(smear: Path) -> dict[str, Any]:
    return dict(json.loads(smear.with_suffix(".json").read_text()))


def sprites(class_name: str, count: int = 4) -> list[Sprite]:
    rng = np.random.default_rng(7)
    return [draw_cell(class_name, rng) for _ in range(count)]


def mean_width(class_name: str) -> float:
    return float(np.mean([max(sprite.extent()[2:]) for sprite in sprites(class_name)]))


def mean_colour(sprite: Sprite) -> np.ndarray[Any, Any]:
    return np.asarray(
        np.average(sprite.transmission, axis=(0, 1), weights=np.repeat(sprite.alpha[..., None], 3, axis=2))
    )


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_openslide_reads_three_levels_at_a_quarter_of_a_micron(smear: Path) -> None:
    with openslide.OpenSlide(smear) as slide:
        assert slide.dimensions == (SIDE, SIDE)
        assert slide.level_dimensions == ((SIDE, SIDE), (SIDE // 4, SIDE // 4), (SIDE // 16, SIDE // 16))
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == pytest.approx(0.25)
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]) == pytest.approx(0.25)


@pytest.mark.parametrize(("level", "reduction"), [(1, 4), (2, 16)])
def test_each_level_shows_the_same_picture(smear: Path, level: int, reduction: int) -> None:
    with openslide.OpenSlide(smear) as slide:
        whole = slide.read_region((0, 0), 0, (SIDE, SIDE)).convert("RGB").reduce(reduction)
        small = slide.read_region((0, 0), level, whole.size).convert("RGB")
    expected, seen = np.asarray(whole, dtype=float), np.asarray(small, dtype=float)
    aligned = np.abs(expected - seen).mean()  # JPEG alone makes about 3 in level 1, 5 in level 2
    assert aligned < 6
    assert aligned < 0.6 * np.abs(expected[:, 1:] - seen[:, :-1]).mean()  # one px off would be worse


def test_another_reader_finds_the_software_and_no_date(smear: Path) -> None:
    with tifffile.TiffFile(smear) as file:
        pages = [page for page in file.pages if isinstance(page, tifffile.TiffPage)]
        assert pages
        for page in pages:
            assert page.tags["Software"].value == "Marrowloop"
            assert "DateTime" not in page.tags
            assert page.tile == (256, 256)


def test_a_size_that_no_tile_divides_is_read_whole(tmp_path: Path) -> None:
    path = draw_smear(tmp_path, patient="D01", seed=0, width=700, height=531)
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (700, 531)
        corner = np.asarray(slide.read_region((690, 521), 0, (10, 10)))
    assert corner[..., 3].min() == 255
    assert corner[..., :3].mean() > 40  # glass or cells, not the black of a padded tile


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    size = {"width": 512, "height": 512}
    for folder, patient, seed in (("one", "D01", 3), ("two", "D01", 3), ("three", "D01", 4)):
        (tmp_path / folder).mkdir()
        draw_smear(tmp_path / folder, patient=patient, seed=seed, **size)
    first, second, third = (digests(tmp_path / folder) for folder in ("one", "two", "three"))
    assert set(first) == {"D01.tif", "D01.json"}  # and no temporary file is left
    assert first == second
    assert first["D01.tif"] != third["D01.tif"]
    assert first["D01.json"] != third["D01.json"]


def test_boxes_lie_inside_the_slide_in_the_monolayer_and_carry_known_names(truth: dict[str, Any]) -> None:
    assert len(truth["boxes"]) > 30
    for name, x, y, width, height in truth["boxes"]:
        assert name in CLASS_NAMES
        assert width > 0
        assert height > 0
        assert 0 <= x <= x + width <= SIDE
        assert 0 <= y <= y + height <= SIDE
        touched = [
            truth["zones"][row][column]
            for row in range(int(y // 128), int((y + height - 1) // 128) + 1)
            for column in range(int(x // 128), int((x + width - 1) // 128) + 1)
        ]
        assert set(touched) == {"m"}


def test_the_truth_describes_the_slide(smear: Path, truth: dict[str, Any]) -> None:
    shared = Path(__file__).resolve().parents[3] / "../shared/data/smears/P01.json"
    if shared.exists():
        assert set(json.loads(shared.read_text())) - {"manual_ndc"} <= set(truth)
    assert (truth["slide"], truth["patient"], truth["preparation"]) == (smear.name, "D01", "push")
    assert (truth["width"], truth["height"], truth["mpp"], truth["field"]) == (SIDE, SIDE, 0.25, 128)
    assert truth["classes"] == list(CLASS_NAMES)
    assert [len(row) for row in truth["zones"]] == [SIDE // 128] * (SIDE // 128)
    assert truth["row_shift"] == [0] * (SIDE // 128)
    assert truth["counts"] == Counter(box[0] for box in truth["boxes"])


def test_a_box_is_drawn_round_something_darker_than_the_glass(smear: Path, truth: dict[str, Any]) -> None:
    with openslide.OpenSlide(smear) as slide:
        picture = np.asarray(slide.read_region((0, 0), 0, (SIDE, SIDE)).convert("L"), dtype=float)
    glass = np.percentile(picture, 95)
    for name, x, y, width, height in truth["boxes"]:
        inside = picture[int(y) : int(y + height), int(x) : int(x + width)]
        if name not in ("debris", "platelet"):
            assert np.percentile(inside, 5) < 0.75 * glass, name


def test_boxes_do_not_cover_one_another(truth: dict[str, Any]) -> None:
    boxes = np.asarray([box[1:] for box in truth["boxes"]])
    centre_x, centre_y = boxes[:, 0] + boxes[:, 2] / 2, boxes[:, 1] + boxes[:, 3] / 2
    distance = np.hypot(centre_x[:, None] - centre_x, centre_y[:, None] - centre_y)
    np.fill_diagonal(distance, np.inf)
    smaller = np.minimum.outer(boxes[:, 2:].max(axis=1), boxes[:, 2:].max(axis=1))
    assert (distance > 0.5 * smaller).all()


def test_platelets_do_not_dominate(truth: dict[str, Any]) -> None:
    assert 0 < truth["counts"]["platelet"] <= 0.15 * len(truth["boxes"])


@pytest.mark.parametrize("seed", range(6))
def test_most_whole_tiles_of_a_full_slide_are_monolayer(seed: int) -> None:
    zones = lay_out_zones(5888, 5120, np.random.default_rng(seed))
    assert zones.shape == (40, 46)
    assert set(np.unique(zones)) == {"m", "t", "b", "d"}
    assert 0.55 <= monolayer_tiles(zones) < 0.9


def test_zones_are_patches_and_not_specks() -> None:
    zones = lay_out_zones(5888, 5120, np.random.default_rng(1))
    like_right = (zones[:, 1:] == zones[:, :-1]).mean()
    like_below = (zones[1:] == zones[:-1]).mean()
    assert min(like_right, like_below) > 0.85


def test_monolayer_tiles_counts_only_whole_tiles() -> None:
    zones = np.full((9, 8), "m")
    zones[0, 0] = "t"
    zones[8, :] = "b"
    assert monolayer_tiles(zones) == 0.75


def test_a_zone_map_refuses_boxes_over_a_border_or_the_edge() -> None:
    zones = np.asarray([list("mmt"), list("mmt")])
    left, top = np.asarray([0, 200, 230, -5]), np.asarray([0, 100, 0, 0])
    assert ZoneMap(zones).holds("m", left, top, 50, 50).tolist() == [True, True, False, False]
    assert ZoneMap(zones).holds("td", np.asarray([256]), np.asarray([0]), 128, 256).tolist() == [True]
    assert ZoneMap(zones).holds("td", np.asarray([256]), np.asarray([0]), 129, 256).tolist() == [False]
    assert ZoneMap(zones).at(np.asarray([-3, 300]), np.asarray([0, 999])).tolist() == ["m", "t"]


def test_the_stain_differs_by_patient(tmp_path: Path) -> None:
    colours = []
    for patient in ("D01", "D02"):
        path = draw_smear(tmp_path, patient=patient, seed=0, width=512, height=512)
        with openslide.OpenSlide(path) as slide:
            pixels = np.asarray(slide.read_region((0, 0), 0, (512, 512)).convert("RGB"), dtype=float).reshape(-1, 3)
        colours.append(np.median(pixels, axis=0))
    assert np.abs(colours[0] - colours[1]).max() > 4


def test_a_stronger_stain_is_darker_and_clear_glass_stays_clear() -> None:
    stain = choose_stain(np.random.default_rng(0))
    ramp = np.repeat(np.asarray([[1.0, 0.8, 0.4]], dtype=np.float32)[..., None], 3, axis=2)
    stained = stain.apply(ramp).mean(axis=2)[0]
    assert stained[0] == pytest.approx(1.0)
    assert stained[0] > stained[1] > stained[2]


def test_there_are_the_nineteen_classes_of_the_paper_in_their_order() -> None:
    assert len(CLASS_NAMES) == 19
    assert CLASS_NAMES[:6] == ("neutrophil", "metamyelocyte", "myelocyte", "promyelocyte", "blast", "erythroblast")
    assert CLASS_NAMES[6:12] == (
        "megakaryocyte nucleus",
        "lymphocyte",
        "monocyte",
        "plasma cell",
        "eosinophil",
        "basophil",
    )
    assert CLASS_NAMES[12:] == (
        "megakaryocyte",
        "debris",
        "histiocyte",
        "mast cell",
        "platelet",
        "platelet clump",
        "other cell",
    )


@pytest.mark.parametrize("class_name", CLASS_NAMES)
def test_each_class_is_drawn_whole_and_never_twice_the_same(class_name: str) -> None:
    first, second = sprites(class_name, 2)
    x, y, width, height = first.extent()
    tall, wide = first.size
    assert 5 <= min(width, height) <= max(width, height) <= 320
    assert x >= 0
    assert y >= 0
    assert x + width <= wide
    assert y + height <= tall
    assert first.transmission[first.alpha > 0.5].mean() < 0.9
    edges = np.concatenate([first.alpha[0], first.alpha[-1], first.alpha[:, 0], first.alpha[:, -1]])
    assert edges.mean() < 0.3  # not cut off by the sheet
    assert first.size != second.size or not np.array_equal(first.transmission, second.transmission)


def test_sizes_stand_in_the_order_an_expert_expects() -> None:
    names = ["megakaryocyte", "megakaryocyte nucleus", "promyelocyte", "neutrophil", "lymphocyte", "platelet"]
    widths = [mean_width(name) for name in names]
    assert widths == sorted(widths, reverse=True)
    assert 200 <= widths[0] <= 320
    assert 44 <= widths[3] <= 60  # 11-15 um
    assert 8 <= widths[5] <= 24  # 2-6 um


def test_colours_tell_the_granulocytes_and_plasma_cells_apart() -> None:
    red, green, blue = mean_colour(sprites("eosinophil")[0])
    assert red > blue > 0
    assert red - green > 0.1
    plasma = mean_colour(sprites("plasma cell")[0])
    assert plasma[2] > plasma[0] + 0.15
    foamy, dark = (mean_colour(sprites(name)[0]).mean() for name in ("histiocyte", "mast cell"))
    assert foamy > dark + 0.25


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(KeyError):
        draw_cell("unicorn", np.random.default_rng(0))


def test_a_slide_smaller_than_a_tile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one tile"):
        draw_smear(tmp_path, patient="D01", seed=0, width=511, height=2000)


@pytest.mark.parametrize("patient", ["", "../D01", "a/b"])
def test_a_pseudonym_that_is_a_path_is_refused(tmp_path: Path, patient: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        draw_smear(tmp_path, patient=patient, seed=0, width=512, height=512)


def test_the_command_draws_each_patient_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("draw_smears", tmp_path / "new", "--slides", "2", "--width", "512", "--height", "512")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"D01.tif", "D01.json", "D02.tif", "D02.json"}
    assert capsys.readouterr().out.count("Drew") == 2


def test_the_command_explains_a_size_it_cannot_draw(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="at least one tile"):
        call_command("draw_smears", tmp_path, "--slides", "1", "--width", "100")
