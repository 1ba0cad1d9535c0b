"""Sessions whose sound is encoded at once, as SoulX-FlashHead's published code does it in its mode `once`."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers.bundles.flashhead_once import published_features
from helpers.bundles.sessions import avatar, drain, frames_of, speech
from helpers.bundles.small import AUDIO_ENCODER
from helpers.bundles.tiny import TINY, TINY_PRO
from helpers.bundles.tiny_bundle import write_tiny_bundle

from rap_edge.models.audio_encoder import AudioEncoder
from rap_edge.runtime.avatar import Avatar
from rap_edge.runtime.bundle.manifest import MANIFEST_NAME, Manifest, WorkingMemory
from rap_edge.runtime.errors import AudioError, BundleError, NumericalError
from rap_edge.runtime.outputs.render import render
from rap_edge.runtime.session.sample_buffer import SampleBuffer
from rap_edge.runtime.session.whole_sound import WholeSound
from rap_edge.runtime.spec import ModelSpec

ROOMY = (WorkingMemory(TINY.window_frames, 1000), WorkingMemory(100 * TINY.fps, 10_000))


class TorchEncoder:
    def __init__(self, network: AudioEncoder) -> None:
        self.network = network

    def require(self, frames: int) -> None:
        pass

    def encode(self, waveform):
        with torch.no_grad():
            return self.network(torch.from_numpy(waveform)[None]).numpy()


@pytest.mark.parametrize("spec", [TINY, TINY_PRO, TINY.with_new_latents(1)], ids=["tiny", "pro", "short chunks"])
@pytest.mark.parametrize("seconds", [0.3, 2.5, 3.84])
def test_chunks_hear_what_the_published_code_gives_them_after_a_moment_of_silence(
    spec: ModelSpec, seconds: float
) -> None:
    torch.manual_seed(0)
    network = AudioEncoder(AUDIO_ENCODER).eval()
    sound = speech(seconds)
    before = np.zeros(spec.carried_frames * spec.samples_per_frame, np.float32)
    # What is shorter than a chunk the published code does not render at all.
    behind = np.zeros(max(spec.chunk_samples - sound.size, 0), np.float32)
    with torch.no_grad():
        expected = published_features(network, spec, torch.from_numpy(np.concatenate([before, sound, behind])))
    heard, buffer = WholeSound(spec, TorchEncoder(network)), SampleBuffer(spec.window_samples)
    buffer.append(sound)
    assert len(expected) == -(-sound.size // spec.chunk_samples)
    for index, features in enumerate(expected):
        np.testing.assert_allclose(heard.features(index, buffer), features.numpy(), atol=1e-6)


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path / "bundle", mode="once", memory=ROOMY)


def test_the_picture_follows_its_own_sound_and_lasts_as_long(bundle) -> None:
    # It changes in the middle of chunks: at their ends a rolling window knows less.
    pcm = np.repeat([0.0, 0.8, 0.2, 0.4], TINY.chunk_samples).astype(np.float32)[TINY.chunk_samples // 2 :]
    face = Avatar.open(bundle)
    with face.session() as session, face.session(audio_encode_mode="once") as once:
        for each in (session, once):
            each.push(pcm)
        assert not list(once.chunks())  # nothing is known before the end
        streamed, whole = drain(session), drain(once)
    assert np.array_equal(np.concatenate([chunk.audio for chunk in whole]), pcm)
    # Loudness needs no more context, so that both modes show the same.
    assert np.array_equal(frames_of(whole), frames_of(streamed))
    assert all("audio_encoder" in chunk.stats for chunk in whole)


def test_a_bundle_for_any_length_is_a_bundle_like_the_others(bundle, tmp_path) -> None:
    plain = write_tiny_bundle(tmp_path / "plain")
    results = []
    for root in (bundle, plain):
        with Avatar.open(root).session() as session:
            session.push(speech(1.7))
            results.append(frames_of(drain(session)))
    assert np.array_equal(*results)


def rewritten(bundle, **changes) -> None:
    file = bundle / MANIFEST_NAME
    manifest = Manifest.from_json(file.read_text())
    graph = dataclasses.replace(manifest.graphs["audio_encoder"], **changes)
    file.write_text(dataclasses.replace(manifest, graphs={**manifest.graphs, "audio_encoder": graph}).to_json())


def test_more_sound_than_a_bundle_takes_is_refused_while_it_comes_in(bundle) -> None:
    with Avatar.open(bundle).session(audio_encode_mode="once") as session:
        session.push(np.zeros(90 * TINY.sample_rate, np.float32))
        with pytest.raises(AudioError, match=r"longer than the 100 s that can be encoded at once.*any length"):
            session.push(np.zeros(11 * TINY.sample_rate, np.float32))


def test_a_sound_for_which_there_is_no_memory_is_refused(bundle) -> None:
    rewritten(bundle, memory=(WorkingMemory(100, 1 << 10), WorkingMemory(200, 1 << 49)))
    with (
        Avatar.open(bundle).session(audio_encode_mode="once") as session,
        pytest.raises(AudioError, match=r"longer than the 4 s .* in the .* of memory that are free"),
    ):
        session.push(np.zeros(8 * TINY.sample_rate, np.float32))


def test_what_cannot_encode_a_whole_sound_is_refused(tmp_path, bundle) -> None:
    with pytest.raises(BundleError, match=r"windows of 1 s.*export it again with --audio-encode-mode once"):
        Avatar.open(write_tiny_bundle(tmp_path / "plain")).session(audio_encode_mode="once")
    rewritten(bundle, memory=())
    with pytest.raises(BundleError, match="export it again"):
        Avatar.open(bundle).session(audio_encode_mode="once")
    with pytest.raises(BundleError, match="without a bundle"):
        avatar().session(audio_encode_mode="once")


def test_a_live_source_is_refused(bundle) -> None:
    class Live:
        rate, channels, live = 16000, 1, True

    with pytest.raises(AudioError, match="live source has no end"):
        render(Avatar.open(bundle), Live(), None, audio_encode_mode="once")  # type: ignore[arg-type]


def test_features_that_are_not_numbers_end_the_session(bundle) -> None:
    class Broken(TorchEncoder):
        def encode(self, waveform):
            return np.full((waveform.size // TINY.samples_per_frame, 2, 8), np.nan, np.float32)

    buffer = SampleBuffer(TINY.window_samples)
    buffer.append(speech(1.0))
    with pytest.raises(NumericalError, match="audio_encoder"):
        WholeSound(TINY, Broken(AudioEncoder(AUDIO_ENCODER))).features(0, buffer)
