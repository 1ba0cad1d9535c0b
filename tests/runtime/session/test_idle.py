import dataclasses

import numpy as np
import pytest
from helpers.bundles.sessions import avatar, drain, frames_of, noisy_field, speech
from helpers.bundles.tiny import TINY, TINY_CLEAN
from hypothesis import given, settings
from hypothesis import strategies as st

SPEC = dataclasses.replace(TINY, idle_replays=1)
CHUNK = SPEC.chunk_samples


def moving(b) -> None:
    """Every latent drifts away from the one before it, as a head that moves does, and noise makes chunks differ."""
    latents = b["latents"]
    b["velocity"][...] = latents * 0.9
    b["velocity"][:, :, 2:] = latents[:, :, 2:] - (latents[:, :, 1:2] + 0.1 * latents[:, :, 2:])


def stream(spec, pcm: np.ndarray, **bodies) -> list:
    with avatar(spec, **bodies) as face, face.session(seed=3) as session:
        session.push(pcm)
        return drain(session)


def test_settled_silence_is_rendered_once_and_shown_again_backwards() -> None:
    pcm = np.concatenate([speech(2 * SPEC.chunk_seconds), np.zeros(6 * CHUNK, np.float32)])
    chunks = stream(SPEC, pcm, dit=moving)
    assert [chunk.steps for chunk in chunks] == [2, 2, 2, 2, 0, 2, 0, 2]
    assert [chunk.silent for chunk in chunks] == [False, False, *[True] * 6]
    assert np.array_equal(chunks[4].frames, chunks[3].frames[::-1])
    assert np.array_equal(chunks[6].frames, chunks[5].frames[::-1])
    assert not np.array_equal(chunks[5].frames, chunks[3].frames)


@pytest.mark.parametrize("replays", [1, 2, 3])
def test_the_frames_are_replayed_alternately_backwards_and_forwards(replays: int) -> None:
    spec = dataclasses.replace(SPEC, idle_replays=replays)
    chunks = stream(spec, np.zeros(6 * CHUNK, np.float32), dit=moving)
    first = chunks[1].frames
    for i in range(replays):
        assert np.array_equal(chunks[2 + i].frames, first[::-1] if i % 2 == 0 else first)
    assert chunks[2 + replays].steps == 2


@pytest.mark.parametrize("replays", [1, 2])
@pytest.mark.parametrize("spec", [SPEC, dataclasses.replace(TINY_CLEAN, idle_replays=1)], ids=["noisy", "clean"])
def test_what_follows_goes_on_from_where_the_replay_ended(spec, replays: int) -> None:
    """Backwards ends at the chunk's start, so the next one is carried on from before it."""
    spec = dataclasses.replace(spec, idle_replays=replays)
    seen = []

    def watched(b) -> None:
        seen.append(b["latents"][0, :, : spec.carried_latents].copy())
        noisy_field(b)

    stream(spec, np.zeros((3 + replays) * CHUNK, np.float32), dit=watched)
    first_step = seen[:: spec.steps]
    settled, after = first_step[1], first_step[2]
    assert np.array_equal(after, settled) == (replays == 1)


def test_speech_is_never_replayed_and_starts_within_its_own_chunk() -> None:
    pcm = np.zeros(7 * CHUNK, np.float32)
    pcm[4 * CHUNK + CHUNK // 2 :] = 0.5
    with_idle, without = stream(SPEC, pcm), stream(TINY, pcm)
    assert [chunk.steps for chunk in with_idle] == [2, 2, 0, 2, 2, 2, 2]
    light = [frames_of(chunks)[4 * SPEC.new_frames :].mean((1, 2, 3)) for chunks in (with_idle, without)]
    assert np.array_equal(light[0], light[1])
    onset = SPEC.new_frames // 2
    assert light[0][onset + SPEC.temporal_compression] > light[0][0] + 20


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 20_000), max_size=5))
def test_any_split_of_silence_and_speech_gives_the_same_frames(cuts: list[int]) -> None:
    pcm = np.zeros(6 * CHUNK + 77, np.float32)
    pcm[:CHUNK] = pcm[5 * CHUNK :] = 0.2
    whole, parts, start = stream(SPEC, pcm, dit=noisy_field), [], 0
    with avatar(SPEC, dit=noisy_field) as face, face.session(seed=3) as session:
        for cut in cuts:
            session.push(pcm[start : start + cut])
            parts += session.chunks()
            start += cut
        session.push(pcm[start:])
        assert np.array_equal(frames_of(parts + drain(session)), frames_of(whole))


def test_changing_a_frame_that_was_given_does_not_change_what_is_replayed() -> None:
    with avatar(SPEC, dit=moving) as face, face.session() as session:
        session.push(np.zeros(3 * CHUNK, np.float32))
        kept = []
        for chunk in session.chunks():
            kept.append(chunk.frames.copy())
            chunk.frames[...] = 0
    assert np.array_equal(kept[2], kept[1][::-1])


def test_the_noise_of_a_room_becomes_silence_once_it_is_known_and_speech_still_wakes_the_face() -> None:
    noise = 0.003 * np.random.default_rng(0).standard_normal(12 * CHUNK).astype(np.float32)
    noise[10 * CHUNK :] += speech(2 * SPEC.chunk_seconds)
    chunks = stream(SPEC, noise, dit=moving)
    # Three seconds have to be heard first, and five chunks are as long as that.
    assert [chunk.silent for chunk in chunks] == [False] * 4 + [True] * 6 + [False] * 2
    assert [chunk.steps for chunk in chunks] == [2, 2, 2, 2, 2, 2, 0, 2, 0, 2, 2, 2]
