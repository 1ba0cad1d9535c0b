import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.calibration.observe.observers import BINS, OBSERVERS, Histogram
from rap_edge.calibration.observe.ranges import Activation, Extent


def histogram(*parts: np.ndarray) -> Histogram:
    result = Histogram()
    for part in parts:
        result.add(part)
    return result


def rounding_error(values: np.ndarray, limit: float) -> float:
    step = limit / 127
    return float(((np.clip(np.rint(values / step), -127, 127) * step - values) ** 2).mean())


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=200), st.integers(0, 200))
def test_what_is_seen_in_parts_counts_as_what_is_seen_at_once(values, cut) -> None:
    array = np.array(values, np.float32)
    whole, parts = histogram(array), histogram(array[:cut], array[cut:])
    assert whole.largest == parts.largest
    assert whole.counts.sum() == parts.counts.sum() == len(array)
    if whole.width == parts.width:
        # A value that waited in bin 0 while all were 0 is the only difference there may be.
        assert np.array_equal(whole.counts, parts.counts)


def test_memory_is_constant() -> None:
    rng = np.random.default_rng(0)
    seen = histogram(*(rng.standard_normal(1000).astype(np.float32) * 2.0**i for i in range(20)))
    assert seen.counts.shape == (BINS,)


def test_one_outlier_is_kept_by_min_max_and_clipped_by_the_others() -> None:
    values = np.random.default_rng(0).standard_normal(1 << 16).astype(np.float32)
    values[77] = 400.0
    limits = {name: observer(histogram(values), 127) for name, observer in OBSERVERS.items()}
    assert limits["min-max"] == 400.0
    assert limits["percentile"] < 6.0
    assert limits["entropy"] < 200.0
    # 400 is so far away that clipping it costs more than coarse steps do: the mean square keeps it, or nearly.
    assert limits["mse"] <= 400.0


def test_the_mse_observer_has_the_least_error_of_all() -> None:
    values = np.random.default_rng(1).laplace(size=1 << 15).astype(np.float32)
    errors = {name: rounding_error(values, observer(histogram(values), 127)) for name, observer in OBSERVERS.items()}
    assert errors["mse"] <= 1.02 * min(errors.values())
    assert errors["mse"] < errors["min-max"]


@pytest.mark.parametrize("name", sorted(OBSERVERS))
def test_nothing_but_zeros_is_no_error(name: str) -> None:
    assert OBSERVERS[name](histogram(np.zeros(10, np.float32)), 127) == 0.0


def test_a_level_or_a_channel_that_dominates_is_seen() -> None:
    even, levelled, peaked = Activation(), Activation(), Activation()
    for level in (1000.0, 500.0, 250.0):
        even.add(np.ones((2, 4), np.float32), level, -1)
        levelled.add(np.ones((2, 4), np.float32) * (10 if level == 500.0 else 1), level, -1)
        peaked.add(np.array([[1, 1, 90, 1.0]], np.float32), level, -1)
    assert not even.dominated
    assert levelled.level_ratio == 10.0
    assert levelled.dominated
    assert peaked.channel_ratio == 90.0
    assert peaked.dominated


def test_an_activation_knows_both_its_ends_over_all_runs() -> None:
    activation = Activation()
    for values in ([-0.25, 3.0], [0.0, 8.0], [1.0, 2.0]):
        activation.add(np.array(values, np.float32), None, None)
    assert activation.extent == Extent(-0.25, 8.0)
    assert activation.extent.within(4.0) == Extent(-0.25, 4.0)
    assert activation.extent.magnitude == 8.0


def test_an_activation_survives_json() -> None:
    import json

    activation = Activation()
    activation.add(np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32), 500.0, -1)
    again = Activation.from_dict(json.loads(json.dumps(activation.to_dict())))
    assert np.array_equal(again.histogram.counts, activation.histogram.counts)
    assert again.levels == activation.levels
    assert again.extent == activation.extent
    assert np.array_equal(again.channels, activation.channels)
