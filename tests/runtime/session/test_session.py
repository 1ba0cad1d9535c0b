import dataclasses
import threading
import time

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, drain, frames_of, noisy_field, portrait, speech
from helpers.bundles.tiny import TINY, TINY_CLEAN, TINY_GUIDED, tiny_engines
from hypothesis import given, settings
from hypothesis import strategies as st

from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.errors import AudioError, NumericalError, SessionError
from rap_edge.runtime.loop.pixels import to_frames

SPECS = [TINY, TINY_CLEAN, TINY_GUIDED]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_video_lasts_as_long_as_the_audio_and_carries_it(spec) -> None:
    pcm = speech(2.013)
    with avatar(spec) as face, face.session() as session:
        session.push(pcm)
        chunks = drain(session)
    assert len(frames_of(chunks)) == 51  # ceil(2.013 s * 25)
    assert np.array_equal(np.concatenate([chunk.audio for chunk in chunks]), pcm)
    assert [chunk.pts for chunk in chunks] == pytest.approx([i * spec.chunk_seconds for i in range(len(chunks))])


@pytest.mark.parametrize("samples", [1, 639, 640, 641, TINY.chunk_samples, TINY.chunk_samples + 1])
def test_a_started_frame_is_a_whole_frame(samples: int) -> None:
    with avatar() as face, face.session() as session:
        session.push(np.zeros(samples, np.float32))
        assert len(frames_of(drain(session))) == -(-samples // 640)


def test_no_audio_gives_no_video() -> None:
    with avatar() as face, face.session() as session:
        assert drain(session) == []


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 20_000), max_size=5), st.sampled_from(SPECS))
def test_any_split_of_the_audio_gives_the_same_frames(cuts: list[int], spec) -> None:
    pcm, face = speech(1.5), avatar(spec)
    with face.session(seed=4) as session:
        session.push(pcm)
        whole = frames_of(drain(session))
    with face.session(seed=4) as session:
        parts, start = [], 0
        for cut in cuts:
            session.push(pcm[start : start + cut])
            parts += session.chunks()
            start += cut
        session.push(pcm[start:])
        assert np.array_equal(frames_of(parts + drain(session)), whole)


def test_one_sample_at_a_time_gives_the_same_frames() -> None:
    pcm, face = speech(0.7), avatar()
    with face.session(sample_rate=8000) as whole, face.session(sample_rate=8000) as single:
        whole.push(pcm)
        for i in range(pcm.size):
            single.push(pcm[i : i + 1])
        assert np.array_equal(frames_of(drain(whole)), frames_of(drain(single)))


def test_the_same_seed_gives_the_same_frames_and_another_one_does_not() -> None:
    face, results = avatar(dit=noisy_field), []
    for seed in (1, 1, 2):
        with face.session(seed=seed) as session:
            session.push(speech(1.0))
            results.append(frames_of(drain(session)))
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_a_chunk_is_ready_as_soon_as_its_audio_is_there_and_not_before() -> None:
    with avatar() as face, face.session() as session:
        session.push(np.zeros(TINY.chunk_samples - 1, np.float32))
        assert list(session.chunks()) == []
        session.push(np.zeros(1, np.float32))
        assert len(list(session.chunks())) == 1


def test_a_latent_sees_the_sound_of_its_own_frames() -> None:
    loud = np.zeros(4 * TINY.chunk_samples, np.float32)
    loud[2 * TINY.chunk_samples :] = 0.5
    with avatar() as face, face.session() as session:
        session.push(loud)
        light = frames_of(drain(session)).mean((1, 2, 3))
    onset = 2 * TINY.new_frames
    assert light[onset + TINY.temporal_compression :].min() > light[:onset].max() + 20


def test_guidance_extrapolates_from_the_silent_row() -> None:
    pcm, light = np.full(2 * TINY.chunk_samples, 0.05, np.float32), {}
    for spec in (TINY, TINY_GUIDED):
        with avatar(spec) as face, face.session() as session:
            session.push(pcm)
            light[spec.name] = frames_of(drain(session))[-1].astype(float) - portrait().mean(2, keepdims=True)
    ratio = light["tiny-guided"].mean() / light["tiny"].mean()
    assert ratio == pytest.approx(TINY_GUIDED.guidance_scale, rel=0.15)


def test_clean_carry_is_the_encoding_of_the_last_frames() -> None:
    seen: list[np.ndarray] = []
    encode = tiny_engines(TINY_CLEAN)["vae_encoder"]._body

    def watched(b) -> None:
        encode(b)
        seen.append(b["frames"].copy())

    with avatar(TINY_CLEAN, vae_encoder=watched).session() as session:
        session.push(speech(2 * TINY.chunk_seconds))
        chunks = list(session.chunks())
    # The first one is the portrait.
    assert len(seen) == 3
    for frames, chunk in zip(seen[1:], chunks, strict=True):
        assert len(frames) == TINY_CLEAN.carried_frames
        assert np.array_equal(to_frames(frames), chunk.frames[-TINY_CLEAN.carried_frames :])


@pytest.mark.parametrize("stage", ["audio_encoder", "conditioner", "dit", "vae_decoder"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_inf_are_errors_that_name_the_stage(stage: str, value: float) -> None:
    def poison(b) -> None:
        outputs = {
            "audio_encoder": ["audio_features"],
            "dit": ["velocity"],
            "vae_decoder": ["magnitude"],
            "conditioner": [name for name in b if name != "audio_features"],
        }[stage]
        for name in outputs:
            b[name][...] = value

    with avatar(**{stage: poison}) as face, face.session() as session:
        session.push(speech(1.0))
        with pytest.raises(NumericalError, match=stage):
            next(session.chunks())
        with pytest.raises(SessionError):
            next(session.chunks())


def test_a_portrait_that_encodes_to_nan_is_refused_when_the_avatar_opens() -> None:
    def poison(b) -> None:
        b["latents"][...] = np.nan

    with pytest.raises(NumericalError, match="vae_encoder"):
        avatar(vae_encoder=poison)


@pytest.mark.parametrize("bad", [np.array([np.nan], np.float32), np.array([np.inf], np.float32)])
def test_samples_that_are_not_finite_are_refused(bad: np.ndarray) -> None:
    with avatar() as face, face.session() as session, pytest.raises(AudioError):
        session.push(bad)


def test_a_closed_or_finished_session_says_so() -> None:
    with avatar() as face:
        with face.session() as session:
            session.finish()
            session.finish()
            with pytest.raises(SessionError, match="finished"):
                session.push(np.zeros(1, np.float32))
        with pytest.raises(SessionError, match="closed"):
            session.push(np.zeros(1, np.float32))
    with pytest.raises(SessionError, match="closed"):
        face.session()


def test_sessions_of_one_avatar_do_not_disturb_each_other() -> None:
    face, pcm = avatar(dit=noisy_field), [speech(2.0, seed) for seed in range(3)]

    def alone(i: int) -> np.ndarray:
        with face.session(seed=i) as session:
            session.push(pcm[i])
            return frames_of(drain(session))

    expected = [alone(i) for i in range(3)]
    results: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda i=i: results.update({i: alone(i)})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(results[i], expected[i]) for i in range(3))


def test_a_chunk_that_took_longer_than_it_plays_is_late() -> None:
    with avatar(vae_decoder=lambda b: time.sleep(1.05 * TINY.chunk_seconds)) as face, face.session() as session:
        session.push(speech(TINY.chunk_seconds))
        assert next(session.chunks()).late


LONG_CLEAN = dataclasses.replace(TINY_CLEAN, chunk_latents=5, audio_window_seconds=2.0)


@pytest.mark.parametrize(("spec", "new"), [(TINY, 1), (LONG_CLEAN, 2)], ids=["noisy", "clean"])
def test_fewer_new_latents_give_shorter_chunks_from_the_same_graphs(spec, new: int) -> None:
    dialled, pcm = spec.with_new_latents(new), speech(2.013)
    face = Avatar(dialled, tiny_engines(spec), portrait(spec), "fp32")
    with face.session() as session:
        session.push(pcm)
        chunks = drain(session)
    assert {len(chunk.frames) for chunk in chunks[:-1]} == {8 * new}
    assert len(frames_of(chunks)) == 51
    assert np.array_equal(np.concatenate([chunk.audio for chunk in chunks]), pcm)


def test_a_chunk_of_fewer_new_latents_sees_the_sound_of_its_own_frames() -> None:
    loud = np.zeros(8 * TINY.chunk_samples // 2, np.float32)
    loud[4 * TINY.chunk_samples // 2 :] = 0.5
    with Avatar(TINY.with_new_latents(1), tiny_engines(TINY), portrait(), "fp32") as face, face.session() as session:
        session.push(loud)
        light = frames_of(drain(session)).mean((1, 2, 3))
    onset = 4 * 8
    assert light[onset + TINY.temporal_compression :].min() > light[:onset].max() + 20
