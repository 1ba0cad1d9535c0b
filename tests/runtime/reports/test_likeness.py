import numpy as np
import pytest

from rap_edge.runtime.reports.likeness import EXACT_PSNR, psnr

BLACK, GREY = np.zeros((2, 8, 8, 3), np.uint8), np.full((2, 8, 8, 3), 51, np.uint8)


def test_psnr_is_that_of_its_definition() -> None:
    assert psnr(GREY, BLACK) == pytest.approx(20 * np.log10(255 / 51))
    assert psnr(BLACK, GREY) == psnr(GREY, BLACK)
    assert psnr(GREY[0], BLACK[0]) == psnr(GREY, BLACK)


def test_equal_pictures_have_the_largest_psnr() -> None:
    assert psnr(GREY, GREY) == EXACT_PSNR
    almost = GREY.copy()
    almost[0, 0, 0, 0] += 1
    assert psnr(almost, GREY) < EXACT_PSNR


def test_pictures_of_different_shapes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        psnr(GREY, BLACK[:1])
