from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.engine.dataset import TrainingTile, label_lines, write_dataset
from training.engine.progress import Cancelled, TrainingError

CLASSES = ("blast", "other cell")


def tile(name: str, boxes: list[tuple[float, ...]], height: int = 40, width: int = 80) -> TrainingTile:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 200  # red
    return TrainingTile(name, lambda: pixels, np.array(boxes, float).reshape(-1, 5))


def labels(folder: Path, part: str, name: str) -> str:
    return (folder / "labels" / part / f"{name}.txt").read_text()


def test_it_writes_centres_and_sizes_as_shares_of_the_tile(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", [tile("a", [(1, 8, 10, 16, 20)])], [tile("b", [])], CLASSES)
    # centre x = (8 + 8) / 80 = 0.2, centre y = (10 + 10) / 40 = 0.5, width = 16 / 80 = 0.2, height = 20 / 40 = 0.5
    assert labels(tmp_path / "set", "train", "a") == "1 0.2000000 0.5000000 0.2000000 0.5000000\n"


def test_an_empty_tile_has_an_image_and_an_empty_label_file(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", [tile("a", [])], [tile("b", [])], CLASSES)
    assert labels(tmp_path / "set", "train", "a") == ""
    assert (tmp_path / "set/images/train/a.jpg").is_file()


def test_it_leaves_ignored_classes_out_and_keeps_the_ids_of_the_others(tmp_path: Path) -> None:
    boxes = [(0, 0, 0, 8, 8), (1, 20, 20, 8, 8)]
    write_dataset(tmp_path / "set", [tile("a", boxes)], [tile("b", boxes)], CLASSES, ignored={0})
    assert [line[0] for line in labels(tmp_path / "set", "train", "a").splitlines()] == ["1"]
    assert [line[0] for line in labels(tmp_path / "set", "val", "b").splitlines()] == ["1"]


def test_the_colours_stay_red_green_blue(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", [tile("a", [])], [tile("b", [])], CLASSES)
    stored = cv2.imread(str(tmp_path / "set/images/train/a.jpg"))  # blue, green, red
    assert np.abs(stored.astype(int) - [0, 0, 200]).max() <= 3


def test_it_replaces_an_older_set_and_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / "set.writing/images").mkdir(parents=True)
    write_dataset(tmp_path / "set", [tile("old", [])], [tile("b", [])], CLASSES)
    data_yaml = write_dataset(tmp_path / "set", [tile("new", [])], [tile("b", [])], CLASSES)
    assert [path.name for path in (data_yaml.parent / "images/train").iterdir()] == ["new.jpg"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_it_tells_after_each_tile_how_many_are_written(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    write_dataset(
        tmp_path / "set",
        [tile("a", []), tile("b", [])],
        [tile("c", [])],
        CLASSES,
        on_progress=lambda *progress: told.append(progress),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_cancelled_it_stops_before_the_next_tile_and_leaves_no_set(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with pytest.raises(Cancelled):
        write_dataset(
            tmp_path / "set",
            [tile("a", []), tile("b", [])],
            [tile("c", [])],
            CLASSES,
            on_progress=lambda *progress: told.append(progress),
            should_stop=lambda: len(told) == 1,
        )
    assert told == [(1, 3)]
    assert not (tmp_path / "set").exists()


def test_a_set_that_fails_half_way_leaves_the_older_one_whole(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", [tile("old", [])], [tile("b", [])], CLASSES)

    def unreadable() -> np.ndarray:
        raise OSError("The slide is gone.")

    broken = TrainingTile("broken", unreadable, np.zeros((0, 5)))
    with pytest.raises(OSError, match="slide is gone"):
        write_dataset(tmp_path / "set", [tile("new", []), broken], [tile("b", [])], CLASSES)
    assert [path.name for path in (tmp_path / "set/images/train").iterdir()] == ["old.jpg"]


def test_the_set_can_be_moved_because_it_holds_no_absolute_path(tmp_path: Path) -> None:
    data_yaml = write_dataset(tmp_path / "set", [tile("a", [])], [tile("b", [])], ("blast", 'odd: "name"'))
    assert str(tmp_path) not in data_yaml.read_text()
    assert data_yaml.read_text().splitlines()[-1] == 'names: ["blast", "odd: \\"name\\""]'


def test_a_large_image_becomes_windows_and_a_box_belongs_to_those_that_hold_its_centre(tmp_path: Path) -> None:
    # 1000 x 600 px: windows at x 0 and 488, y 0 and 88. The first box lies in one window, the second has its centre
    # where all four overlap, the third is cut: its centre is at 510, 300, in all four.
    boxes = [(1, 40, 20, 32, 64), (0, 495, 200, 10, 10), (1, 460, 250, 100, 100)]
    write_dataset(tmp_path / "set", [tile("a", boxes, 600, 1000)], [tile("b", [])], CLASSES)
    images = sorted(path.stem for path in (tmp_path / "set/images/train").iterdir())
    assert images == ["a_0_0", "a_0_88", "a_488_0", "a_488_88"]
    assert cv2.imread(str(tmp_path / "set/images/train/a_488_88.jpg")).shape == (512, 512, 3)
    shown = {name: [line[0] for line in labels(tmp_path / "set", "train", name).splitlines()] for name in images}
    assert shown == {"a_0_0": ["1", "0", "1"], "a_0_88": ["0", "1"], "a_488_0": ["0", "1"], "a_488_88": ["0", "1"]}
    cut = [float(word) * 512 for word in labels(tmp_path / "set", "train", "a_0_88").splitlines()[1].split()[1:]]
    # From 460 to the window's end at 512, and from 250 - 88 on.
    assert cut == pytest.approx([486, 212, 52, 100], abs=1e-3)


def test_a_window_shows_its_part_of_the_image(tmp_path: Path) -> None:
    pixels = np.full((512, 1024, 3), 255, np.uint8)
    pixels[:, 512:] = 40
    large = TrainingTile("a", lambda: pixels, np.zeros((0, 5)))
    write_dataset(tmp_path / "set", [large], [tile("b", [])], CLASSES)
    stored = {path.stem: cv2.imread(str(path)).mean() for path in (tmp_path / "set/images/train").iterdir()}
    assert stored == {"a_0_0": pytest.approx(255, abs=2), "a_512_0": pytest.approx(40, abs=2)}
    assert labels(tmp_path / "set", "train", "a_0_0") == ""


def test_an_image_that_the_detector_sees_whole_is_one_sample(tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", [tile("a", [], 480, 768)], [tile("b", [])], CLASSES)
    assert [path.name for path in (tmp_path / "set/images/train").iterdir()] == ["a.jpg"]


def test_a_window_never_takes_another_tiles_name(tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        write_dataset(tmp_path / "set", [tile("a_0_0", []), tile("a", [], 600, 1000)], [tile("b", [])], CLASSES)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", "a.b"])
def test_it_refuses_a_name_that_is_no_plain_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="tile name"):
        write_dataset(tmp_path / "set", [tile(name, [])], [], CLASSES)


def test_it_refuses_two_tiles_of_one_name_even_across_the_parts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Two tiles are called a"):
        write_dataset(tmp_path / "set", [tile("a", [])], [tile("a", [])], CLASSES)


@pytest.mark.parametrize("box", [(2, 0, 0, 5, 5), (-1, 0, 0, 5, 5), (0, float("nan"), 0, 5, 5)])
def test_it_refuses_an_impossible_box(tmp_path: Path, box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="tile a"):
        write_dataset(tmp_path / "set", [tile("a", [box])], [], CLASSES)


@given(
    st.floats(-50, 150),
    st.floats(-50, 150),
    st.floats(1, 200),
    st.floats(1, 200),
)
def test_labels_are_always_the_part_of_the_box_inside_the_tile(x: float, y: float, width: float, height: float) -> None:
    lines = label_lines(np.array([[0, x, y, width, height]]), 100, 100)
    left, right = max(x, 0), min(x + width, 100)
    top, bottom = max(y, 0), min(y + height, 100)
    if right <= left or bottom <= top:
        assert lines == []
        return
    centre_x, centre_y, share_x, share_y = (float(word) * 100 for word in lines[0].split()[1:])
    assert [centre_x - share_x / 2, centre_y - share_y / 2] == pytest.approx([left, top], abs=1e-4)
    assert [centre_x + share_x / 2, centre_y + share_y / 2] == pytest.approx([right, bottom], abs=1e-4)


def test_a_full_disk_is_called_that_and_leaves_no_half_set(tmp_path: Path) -> None:
    """The label file is one that the kernel finds no room for."""

    def fill_up() -> np.ndarray:
        (tmp_path / "set.writing/labels/train/a.txt").symlink_to("/dev/full")
        return np.zeros((40, 80, 3), np.uint8)

    full = TrainingTile("a", fill_up, np.array([(0, 8, 10, 16, 20)], float))
    with pytest.raises(TrainingError, match="The disk is full: nothing more can be written to set"):
        write_dataset(tmp_path / "set", [full], [tile("b", [])], CLASSES)
    assert not (tmp_path / "set").exists()
