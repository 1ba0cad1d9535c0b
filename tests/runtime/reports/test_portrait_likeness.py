"""Whether a model can draw a portrait is measured on its own picture of it."""

import numpy as np
import pytest
from helpers.bundles.sessions import portrait
from helpers.bundles.tiny import TINY, tiny_engines
from helpers.bundles.tiny_causal import TINY_CAUSAL, causal_engines

from rap_edge.runtime.bundle.manifest import PortraitFigures
from rap_edge.runtime.loop.interface import encode_reference
from rap_edge.runtime.loop.still import decoded_portrait
from rap_edge.runtime.reports.likeness import EXACT_PSNR
from rap_edge.runtime.reports.portrait_likeness import gates_from, portrait_fault, portrait_figures, ssim


def picture(seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3))
    return coarse.repeat(8, 0).repeat(8, 1).astype(np.uint8)


def test_equal_pictures_have_nothing_between_them() -> None:
    figures = portrait_figures(picture(), picture())
    assert (figures.ssim, figures.colour) == (pytest.approx(1.0), 0.0)
    assert figures.psnr > 100


def test_each_figure_sees_its_own_kind_of_harm() -> None:
    # The darker picture keeps its structure, the shuffled one its colours.
    original = (picture() // 2 + 64).astype(np.uint8)
    darker = portrait_figures(original, (original - 30).astype(np.uint8))
    assert darker.colour == pytest.approx(30.0)
    assert darker.ssim > 0.85
    blocks = original.reshape(16, 4, 16, 4, 3).swapaxes(1, 2).reshape(256, 16, 3)
    shuffled = np.random.default_rng(1).permuted(blocks, axis=1)
    noisy = shuffled.reshape(16, 16, 4, 4, 3).swapaxes(1, 2).reshape(64, 64, 3)
    noisy = (noisy + np.random.default_rng(2).integers(-40, 41, noisy.shape)).clip(0, 255).astype(np.uint8)
    found = portrait_figures(original, noisy)
    assert found.colour < 8
    assert found.ssim < 0.85


def test_ssim_is_that_of_the_paper_on_a_pair_worked_out_by_hand() -> None:
    # One window: means 24 and 26, variances of the sample and their covariance.
    x = np.arange(49, dtype=np.float64).reshape(7, 7)
    y = 50.0 - x
    mean_x, mean_y, var, both = 24.0, 26.0, x.var(ddof=1), -x.var(ddof=1)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (2 * var + c2))
    assert ssim(x, y) == pytest.approx(expected)
    assert ssim(x, x) == pytest.approx(1.0)


def test_gates_leave_a_margin_below_the_worst_portrait_that_is_known() -> None:
    figures = [PortraitFigures(30, 0.9, 2), PortraitFigures(26, 0.95, 4)]
    gates = gates_from(figures)
    assert gates.psnr < 26
    assert gates.ssim < 0.9
    assert gates.colour > 4
    assert all(portrait_fault(each, gates) == "" for each in figures)


def test_a_level_here_and_there_is_no_fault_where_known_portraits_are_drawn_exactly() -> None:
    gates = gates_from([PortraitFigures(EXACT_PSNR, 1.0, 0.0)])
    assert portrait_fault(PortraitFigures(57.0, 1.0, 0.1), gates) == ""


def test_a_fault_names_what_is_short_and_says_what_to_do() -> None:
    gates = PortraitFigures(25, 0.8, 6)
    sentence = portrait_fault(PortraitFigures(14.3, 0.9, 11), gates)
    assert "PSNR 14.3 dB where at least 25.0 dB" in sentence
    assert "difference of colours 11.0 where at most 6.0" in sentence
    assert "SSIM" not in sentence
    assert "pass a picture of the kind that the model was trained on" in sentence


@pytest.mark.parametrize(("spec", "make"), [(TINY, tiny_engines), (TINY_CAUSAL, causal_engines)])
def test_a_portrait_is_drawn_as_it_stands_still(spec, make) -> None:
    engines = make(spec)
    drawn = decoded_portrait(engines, encode_reference(spec, engines["vae_encoder"], portrait(spec)))
    assert drawn.shape == portrait(spec).shape
    assert drawn.std() > 0 or spec is TINY
