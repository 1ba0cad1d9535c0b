import dataclasses
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rap_edge.models.presets import FLASHHEAD_LITE, FLASHHEAD_PRO, PRESETS, RAP_1_3B, RAP_SMALL, load_spec
from rap_edge.runtime.errors import SpecError
from rap_edge.runtime.spec import ModelSpec, linear_alpha


@pytest.mark.parametrize("spec", PRESETS.values(), ids=PRESETS)
def test_a_preset_survives_the_round_trip_through_json(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_flashhead_schedule_is_the_published_one() -> None:
    assert FLASHHEAD_LITE.schedule() == pytest.approx((1000, 937.5, 833.3333, 625, 0), abs=1e-3)


def test_timesteps_are_rounded_as_the_published_code_does_in_bfloat16() -> None:
    rounded = dataclasses.replace(FLASHHEAD_LITE, timestep_dtype="bfloat16")
    assert [rounded.timestep_of(level) for level in rounded.schedule()] == [1000, 936, 832, 624, 0]
    assert rounded.schedule() == FLASHHEAD_LITE.schedule()
    assert FLASHHEAD_LITE.timestep_of(937.5) == 937.5


def test_a_field_that_came_later_is_left_out_at_its_default() -> None:
    later = {"timestep_dtype", "portrait_resizing", "attention", "decoder", "caches"}
    assert not later & RAP_SMALL.to_dict().keys()
    assert later & FLASHHEAD_LITE.to_dict().keys() == {"portrait_resizing"}


def test_flashhead_emits_24_of_33_frames() -> None:
    spec = FLASHHEAD_LITE
    assert (spec.chunk_frames, spec.carried_frames, spec.new_frames, spec.chunk_seconds) == (33, 9, 24, 0.96)


def test_flashhead_pro_emits_28_of_33_frames() -> None:
    spec = FLASHHEAD_PRO.validate()
    assert (spec.chunk_frames, spec.carried_frames, spec.new_frames, spec.chunk_seconds) == (33, 5, 28, 1.12)
    assert spec.latent_shape == (16, 9, 64, 64)


def test_rap_uses_the_papers_chunk_and_guidance() -> None:
    assert (RAP_1_3B.chunk_frames, RAP_1_3B.carried_latents, RAP_1_3B.guidance_scale, RAP_1_3B.batch) == (81, 3, 5, 2)


def test_alpha_is_linear_in_depth_with_the_papers_best_parameters() -> None:
    assert linear_alpha(5) == (0.0, 0.25, 0.5, 0.75, 1.0)


@given(st.integers(1, 50), st.floats(0.1, 20))
def test_any_schedule_falls_from_1000_to_0(steps: int, shift: float) -> None:
    schedule = dataclasses.replace(RAP_SMALL, shift=shift).with_steps(steps).schedule()
    assert len(schedule) == steps + 1
    assert schedule[0] == pytest.approx(1000)
    assert schedule[-1] == 0
    assert all(a > b for a, b in pairwise(schedule))


@given(k=st.integers(2, 30), n=st.integers(1, 29), stride=st.sampled_from([1, 2, 4, 8]), seconds=st.integers(10, 20))
def test_every_chunk_adds_whole_latents_of_frames(k: int, n: int, stride: int, seconds: int) -> None:
    changes = {"chunk_latents": k, "carried_latents": n, "temporal_compression": stride}
    spec = dataclasses.replace(RAP_SMALL, audio_window_seconds=float(seconds), **changes)
    if n >= k:
        with pytest.raises(SpecError, match="carried_latents"):
            spec.validate()
    else:
        spec.validate()
        assert spec.carried_frames == stride * (n - 1) + 1
        assert spec.new_frames == stride * (k - n)
        assert spec.chunk_samples == spec.new_frames * spec.sample_rate // spec.fps


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_size": 250}, "image_size"),
        ({"image_size": (256, 250)}, "image_size"),
        ({"image_size": (256,)}, "image_size must have 2 entries, not 1"),
        ({"chunk_latents": 0}, "chunk_latents"),
        ({"carried_latents": 5}, "carried_latents"),
        ({"sample_rate": 16001}, "sample_rate"),
        ({"audio_window_seconds": 0.5}, "audio_window_seconds"),
        ({"feature_window": 4}, "feature_window"),
        ({"num_heads": 7}, "hidden_dim"),
        ({"alpha": (0.5,)}, "alpha"),
        ({"alpha": (2.0,) * 6}, "alpha"),
        ({"timesteps": (1000.0,)}, "timesteps"),
        ({"timesteps": (500.0, 700.0, 0.0)}, "timesteps"),
        ({"shift": 0.0}, "shift"),
        ({"shift": float("nan")}, "shift"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"color_match": 1.5}, "color_match"),
        ({"solver": "renoise"}, "carry"),
        ({"name": "../etc"}, "name"),
        ({"name": "a\x1b[2J"}, "name"),
        ({"image_size": 15424}, r"image_size\[0\] must be a whole number from 1 to 8192 pixels, not 15424"),
        ({"num_layers": 10**20}, "num_layers"),
        ({"latent_channels": 1 << 62}, "latent_channels"),
        ({"audio_window_seconds": 1e308}, "audio_window_seconds"),
        ({"guidance_scale": 10**400}, "guidance_scale"),
        ({"timesteps": tuple(range(1000, -1, -1)) * 2}, "timesteps"),
        ({"idle_replays": -1}, "idle_replays"),
    ],
)
def test_an_illegal_combination_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        dataclasses.replace(RAP_SMALL, **changes).validate()


@pytest.mark.parametrize(
    ("key", "value"),
    [("fps", 25.5), ("fps", True), ("shift", "5"), ("alpha", 1.0), ("alpha", [None]), ("carry", "dirty"), ("name", 3)],
)
def test_a_field_of_another_type_is_named(key: str, value: object) -> None:
    with pytest.raises(SpecError, match=key):
        ModelSpec.from_dict({**RAP_SMALL.to_dict(), key: value})


def test_unknown_and_missing_keys_are_named() -> None:
    data = RAP_SMALL.to_dict()
    with pytest.raises(SpecError, match="surprise"):
        ModelSpec.from_dict({**data, "surprise": 1})
    del data["fps"]
    with pytest.raises(SpecError, match="fps"):
        ModelSpec.from_dict(data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_json_value_is_taken_for_a_spec(value: object) -> None:
    with pytest.raises(SpecError):
        ModelSpec.from_json(json.dumps(value))


def test_a_name_that_is_neither_preset_nor_file_is_refused(tmp_path) -> None:
    with pytest.raises(SpecError, match="neither a preset"):
        load_spec(str(tmp_path / "none.json"))
    (tmp_path / "mine.json").write_text(RAP_SMALL.to_json())
    assert load_spec(str(tmp_path / "mine.json")) == RAP_SMALL


@given(k=st.integers(2, 30), n=st.integers(1, 29), new=st.integers(-1, 30), carry=st.sampled_from(["noisy", "clean"]))
def test_the_latency_dial_keeps_the_graphs_and_shortens_the_chunk(k: int, n: int, new: int, carry: str) -> None:
    if n >= k:
        return
    solver = "euler" if carry == "noisy" else "renoise"
    changes = {"chunk_latents": k, "carried_latents": n, "carry": carry, "solver": solver}
    spec = dataclasses.replace(RAP_SMALL, audio_window_seconds=20.0, **changes).validate()
    try:
        dialled = spec.with_new_latents(new)
    except SpecError:
        too_few_decoded = carry == "clean" and 8 * (k - new - 1) + 1 > spec.decoded_frames
        assert not 1 <= new <= k - n or too_few_decoded
        return
    assert dialled.new_latents == new
    assert dialled.chunk_seconds == pytest.approx(8 * new / 25)
    assert dialled.latent_shape == spec.latent_shape
    assert dialled.decoded_frames <= spec.decoded_frames


@pytest.mark.parametrize("steps", [0, -1, 1001, 10**20])
def test_steps_have_a_lower_and_an_upper_bound(steps: int) -> None:
    with pytest.raises(SpecError, match="from 1 to 1000"):
        RAP_SMALL.with_steps(steps)


def test_latency_in_seconds_takes_the_longest_chunk_that_is_not_longer() -> None:
    chunks = [RAP_SMALL.with_latency(seconds).chunk_seconds for seconds in (0.32, 0.63, 0.64, 0.96, 60.0)]
    assert chunks == pytest.approx([0.32, 0.32, 0.64, 0.96, 0.96])
    assert RAP_SMALL.with_latency(1e308) == RAP_SMALL.with_latency(60.0)
    for impossible in (0.31, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SpecError, match=r"0\.32"):
            RAP_SMALL.with_latency(impossible)


def test_flashhead_can_have_two_new_latents_but_not_one() -> None:
    assert FLASHHEAD_LITE.with_new_latents(2).carried_frames == 17
    with pytest.raises(SpecError, match="decoder gives 24"):
        FLASHHEAD_LITE.with_new_latents(1)
