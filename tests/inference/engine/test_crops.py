import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.crops import CONTEXT, crop_cells, crop_side


def noise(side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


class TestCropSide:
    def test_it_is_one_and_a_half_of_the_median_of_the_longer_sides(self) -> None:
        assert crop_side([(0, 0, 20, 40), (0, 0, 60, 10), (0, 0, 50, 50)]) == 50 * CONTEXT

    def test_without_a_box_there_is_none(self) -> None:
        with pytest.raises(ValueError, match="no box"):
            crop_side(np.empty((0, 4)))


class TestCropCells:
    def test_at_its_own_scale_a_crop_is_the_pixels_around_the_middle(self) -> None:
        tile = noise()
        (crop,) = crop_cells(tile, [(20, 24, 10, 8)], side=16, size=16)  # middle 25, 28
        assert np.array_equal(crop, tile[20:36, 17:33])

    def test_beyond_the_edge_pixels_are_mirrored(self) -> None:
        tile = noise()
        (crop,) = crop_cells(tile, [(0, 0, 8, 8)], side=16, size=16)  # from -4 to 12
        assert np.array_equal(crop, np.pad(tile, ((4, 0), (4, 0), (0, 0)), mode="reflect")[:16, :16])

    def test_a_cell_larger_than_the_side_is_whole_in_its_crop(self) -> None:
        tile = np.zeros((96, 96, 3), np.uint8)
        cv2.rectangle(tile, (10, 20), (69, 59), (255, 255, 255), -1)  # 60 x 40 px
        (crop,) = crop_cells(tile, [(10, 20, 60, 40)], side=32, size=32)
        assert (crop[..., 0] > 127).sum() == pytest.approx(60 * 40 * (32 / 60) ** 2, rel=0.05)

    @pytest.mark.parametrize("side", [24, 32, 60, 90])
    def test_the_middle_of_a_larger_crop_is_the_crop_itself(self, side: int) -> None:
        tile = cv2.GaussianBlur(noise(200), (0, 0), 3)
        boxes = [(70, 60, 60, 40), (80, 80, 20, 20)]  # one is larger than the side, or none
        plain = crop_cells(tile, boxes, side=side, size=24)
        wide = crop_cells(tile, boxes, side=side, size=36, margin=1.5)
        assert np.abs(wide[:, 6:30, 6:30].astype(int) - plain).max() <= 2

    def test_large_cells_are_averaged_and_not_sampled(self) -> None:
        tile = np.zeros((256, 256, 3), np.uint8)
        tile[:, ::2] = 200
        (crop,) = crop_cells(tile, [(64, 64, 128, 128)], side=192, size=32)
        assert np.abs(crop.astype(int) - 100).max() <= 2

    def test_no_box_no_crop(self) -> None:
        assert crop_cells(noise(), np.empty((0, 4)), side=20, size=32).shape == (0, 32, 32, 3)

    @given(
        x=st.floats(-20, 80),
        y=st.floats(-20, 80),
        width=st.floats(1, 90),
        height=st.floats(1, 90),
        side=st.floats(8, 90),
    )
    def test_of_one_colour_every_crop_has_that_colour(self, x, y, width, height, side) -> None:
        tile = np.full((60, 60, 3), (10, 120, 230), np.uint8)
        (crop,) = crop_cells(tile, [(x, y, width, height)], side=side, size=24)
        assert np.array_equal(crop, np.broadcast_to(tile[:1, :1], crop.shape))
