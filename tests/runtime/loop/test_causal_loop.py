"""The loop of causal models: a latent is the same however chunks, sessions and streams are cut."""

import dataclasses

import numpy as np
import pytest
from helpers.bundles.sessions import drain, frames_of, portrait, speech
from helpers.bundles.streams import SimulatedStream, seen
from helpers.bundles.tiny import TINY, Body
from helpers.bundles.tiny_causal import TINY_CAUSAL, causal_engines
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.errors import EngineError, NumericalError, SpecError
from rap_edge.runtime.loop.carry import Cached
from rap_edge.runtime.loop.causal_loop import CausalLoop
from rap_edge.runtime.loop.interface import Loop, encode_reference
from rap_edge.runtime.session.sample_buffer import SampleBuffer
from rap_edge.runtime.spec import ModelSpec

FRAME = TINY_CAUSAL.samples_per_frame


def loop_of(spec: ModelSpec = TINY_CAUSAL, **bodies: Body) -> CausalLoop:
    engines = causal_engines(spec, **bodies)
    return CausalLoop(engines, spec, encode_reference(spec, engines["vae_encoder"], portrait(spec)), 3)


def rendered(loop: Loop, spec: ModelSpec, sound: np.ndarray, chunks: range) -> np.ndarray:
    buffer = SampleBuffer(spec.window_samples)
    buffer.append(sound)
    frames = []
    for index in chunks:
        buffer.read(*spec.window_of(index), loop.waveform)
        frames.append(loop.render(spec.steps)[0])
    return np.concatenate(frames)


def avatar(spec: ModelSpec = TINY_CAUSAL, **bodies: Body) -> Avatar:
    return Avatar(spec, causal_engines(spec, **bodies), portrait(spec), "fp32")


@pytest.mark.parametrize("latents", [1, 2, 3])
def test_the_length_of_a_chunk_changes_no_frame(latents: int) -> None:
    shorter, sound = TINY_CAUSAL.with_new_latents(latents), speech(2.5)
    expected = rendered(loop_of(), TINY_CAUSAL, sound, range(3))
    found = rendered(loop_of(shorter), shorter, sound, range(12 // latents))
    assert np.array_equal(found, expected)


def test_frames_depend_on_the_sound_before_and_some_frames_behind_them() -> None:
    sound = speech(2.5)
    base = rendered(loop_of(), TINY_CAUSAL, sound, range(2))

    def changed(frame: int) -> list[int]:
        other = sound.copy()
        other[frame * FRAME : (frame + 1) * FRAME] *= 3
        found = rendered(loop_of(), TINY_CAUSAL, other, range(2))
        return sorted({index // 4 for index in np.flatnonzero((found != base).any(axis=(1, 2, 3)))})

    # Three frames ahead: frame 14 is heard by the latent of frames 8 to 11, frame 15 by the next one at the earliest.
    assert changed(14)[0] == 2
    assert changed(15)[0] == 3
    assert changed(0)[0] == 0


def test_a_chunk_that_is_taken_back_is_rendered_again_bit_for_bit() -> None:
    loop, sound = loop_of(), speech(2.5)
    rendered(loop, TINY_CAUSAL, sound, range(1))
    before = loop.state
    frames = rendered(loop, TINY_CAUSAL, sound, range(1, 2))
    loop.restore(before)
    assert np.array_equal(rendered(loop, TINY_CAUSAL, sound, range(1, 2)), frames)
    # What comes before the chunk is heard again where it was forgotten.
    loop.restore(before.elsewhere())
    assert np.array_equal(rendered(loop, TINY_CAUSAL, sound, range(1, 2)), frames)
    loop.restore(before.after(None))
    assert not np.array_equal(rendered(loop, TINY_CAUSAL, sound, range(1, 2)), frames)


@pytest.mark.parametrize("stage", ["audio_encoder", "conditioner", "dit", "vae_decoder"])
def test_a_chunk_that_fails_leaves_nothing_behind(stage: str) -> None:
    body, runs, failing = causal_engines()[stage]._body, 0, False

    def breakable(b) -> None:
        nonlocal runs
        body(b)
        runs += failing
        if failing and runs == 3:
            raise EngineError("lost")

    loop, sound = loop_of(**{stage: breakable}), speech(2.5)
    expected = rendered(loop_of(), TINY_CAUSAL, sound, range(2))
    rendered(loop, TINY_CAUSAL, sound, range(1))
    before, failing = loop.state, True
    with pytest.raises(EngineError):
        rendered(loop, TINY_CAUSAL, sound, range(1, 2))
    assert loop.state is before
    failing = False
    assert np.array_equal(rendered(loop, TINY_CAUSAL, sound, range(1, 2)), expected[16:])


@pytest.mark.parametrize(
    ("stage", "output"),
    [
        ("audio_encoder", "audio_features"),
        ("conditioner", "audio_value_00"),
        ("dit", "velocity"),
        ("vae_decoder", "magnitude"),
    ],
)
def test_what_is_not_finite_is_named(stage: str, output: str) -> None:
    body, broken = causal_engines()[stage]._body, False

    def spoilt(b) -> None:
        body(b)
        if broken:
            b[output][...] = np.nan

    loop = loop_of(**{stage: spoilt})
    broken = True
    with pytest.raises(NumericalError, match=repr(stage)):
        rendered(loop, TINY_CAUSAL, speech(2.5), range(1))


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 40_000), max_size=5), seconds=st.floats(0.1, 2.5))
def test_a_session_gives_the_same_frames_in_any_split(cuts: list[int], seconds: float) -> None:
    sound = speech(seconds)
    with avatar().session(seed=3) as whole, avatar().session(seed=3) as split:
        whole.push(sound)
        whole.finish()
        found = []
        for part in np.split(sound, sorted(min(cut, sound.size) for cut in cuts)):
            split.push(part)
            found += list(split.chunks())
        split.finish()
        expected = frames_of(list(whole.chunks()))
        assert np.array_equal(frames_of(found + list(split.chunks())), expected)
    assert len(expected) == -(-sound.size // FRAME)


def test_the_networks_are_shown_a_portrait_once_however_many_sessions_it_has() -> None:
    body, runs = causal_engines()["vae_decoder"]._body, 0

    def counted(b) -> None:
        nonlocal runs
        runs += 1
        body(b)

    shared = avatar(vae_decoder=counted)

    def spoken(opened: Avatar) -> np.ndarray:
        with opened.session(seed=3) as session:
            session.push(speech(0.5))
            return frames_of(drain(session))

    found = [spoken(shared) for _ in range(3)]
    # As many latents of every session, and one for the portrait.
    assert runs % 3 == 1
    for frames in found:
        assert np.array_equal(frames, spoken(avatar()))
    other = shared.with_portrait(255 - portrait(TINY_CAUSAL))
    assert not np.array_equal(spoken(other), found[0])


def test_a_session_waits_for_what_is_heard_ahead() -> None:
    with avatar().session() as session:
        session.push(np.zeros(TINY_CAUSAL.chunk_samples + 3 * FRAME - 1, np.float32))
        assert list(session.chunks()) == []
        session.push(np.zeros(1, np.float32))
        assert len(list(session.chunks())) == 1


def test_a_stream_loses_no_sound_at_the_start_of_speech_nor_where_one_utterance_follows_late() -> None:
    loud, spec = speech(0.64, 1), dataclasses.replace(TINY_CAUSAL, timesteps=(1000.0, 0.0))

    def spoken(late: bool) -> np.ndarray:
        stream = SimulatedStream(spec)
        stream.frames(20)
        stream.say(loud)
        if late:
            # All of the first one has been rendered, with silence behind it, when the second one comes.
            stream.render()
        stream.say(loud)
        return seen([frame for frame in stream.frames(60) if frame.utterance is not None])

    prompt, late = spoken(late=False), spoken(late=True)
    assert len(prompt) == len(late) == 32
    # Only the latents that heard silence behind the first utterance differ.
    assert np.array_equal(prompt[:12], late[:12])
    alone = SimulatedStream(spec)
    alone.frames(20)
    alone.say(np.zeros_like(loud))
    quiet = seen([frame for frame in alone.frames(60) if frame.utterance is not None])
    assert (prompt[:4].mean((1, 2, 3)) > quiet[:4].mean((1, 2, 3)) + 5).all()
    assert (late[16:].mean((1, 2, 3)) > quiet.mean() + 5).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"caches": None}, "need each other"),
        ({"attention": "full"}, "need each other"),
        ({"decoder": "full"}, "need each other"),
        ({"carried_latents": 1}, "carried_latents 0"),
        ({"guidance_scale": 2.0}, "guidance_scale 1"),
        ({"audio_window_seconds": 0.64}, "24 frames"),
        ({"caches": dataclasses.replace(TINY_CAUSAL.caches, look_ahead=5)}, "look_ahead"),
        ({"caches": dataclasses.replace(TINY_CAUSAL.caches, past_latents=0)}, r"caches\.past_latents"),
    ],
)
def test_a_causal_spec_that_contradicts_itself_says_how(changes: dict, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        dataclasses.replace(TINY_CAUSAL, **changes).validate()


def test_a_causal_spec_survives_json_and_the_others_say_nothing_of_caches() -> None:
    assert ModelSpec.from_json(TINY_CAUSAL.to_json()) == TINY_CAUSAL
    assert not {"attention", "decoder", "caches"} & TINY.to_dict().keys()


def test_a_stream_hears_again_what_comes_behind_a_chunk_that_it_left_out() -> None:
    stream = SimulatedStream(TINY_CAUSAL)
    stream.frames(20)
    core, frames = stream.core, TINY_CAUSAL.new_frames
    stream.say(speech(6 * TINY_CAUSAL.chunk_seconds))
    stream.render()
    # Nobody renders for two chunks' time and more.
    for _ in range(4 * frames + 8):
        core.next_frame()
    job = core.next_job()
    assert job is not None
    assert job.piece is not None
    past = job.state.past
    assert isinstance(past, Cached)
    assert past.sound is None
