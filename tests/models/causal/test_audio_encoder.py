"""The causal audio encoder: the same features however the sound was split, and nothing of what comes later."""

import dataclasses

import numpy as np
import pytest
import torch

from rap_edge.models.causal.audio_encoder import CausalAudioConfig, CausalAudioEncoder
from rap_edge.runtime.errors import CheckpointError

SMALL = CausalAudioConfig(bands=16, stem=(8, 8), width=12, dilations=(1, 2))


def network() -> CausalAudioEncoder:
    torch.manual_seed(0)
    return CausalAudioEncoder(SMALL).eval()


def sound(frames: int) -> torch.Tensor:
    return torch.randn(1, 640 * frames, generator=torch.Generator().manual_seed(2)) * 0.1


@torch.no_grad()
@pytest.mark.parametrize("split", [(1,) * 10, (3, 7), (4, 4, 2)])
def test_features_do_not_depend_on_how_the_sound_was_split(split: tuple[int, ...]) -> None:
    encoder = network()
    whole, last = encoder(sound(10), encoder.silent_state())
    state, parts = encoder.silent_state(), []
    for part in sound(10).split([640 * frames for frames in split], dim=1):
        features, state = encoder(part, state)
        parts.append(features)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state, last, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_feature_hears_its_own_frame_and_none_after_it() -> None:
    encoder = network()
    before, _ = encoder(sound(8), encoder.silent_state())
    changed = sound(8)
    changed[:, 640 * 4 : 640 * 5] += 0.2 * torch.sin(torch.arange(640) * 0.3)
    after, _ = encoder(changed, encoder.silent_state())
    moved = (after - before).abs().amax((0, 2)) > 1e-5
    assert not moved[:4].any()
    assert moved[4]


@torch.no_grad()
def test_silence_stays_silence() -> None:
    encoder = network()
    state = encoder.silent_state(2)
    _, later = encoder(torch.zeros(2, 640 * 3), state)
    torch.testing.assert_close(later, state, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_tone_is_loudest_in_its_own_band() -> None:
    encoder = CausalAudioEncoder(CausalAudioConfig())
    for frequency in (200, 1000, 5000):
        tone = torch.from_numpy(np.sin(2 * np.pi * frequency * np.arange(640 * 4 + 240) / 16000).astype(np.float32))
        bands = encoder.log_mel(tone[None])[0, :, 5]
        mel = 2595 * np.log10(1 + frequency / 700)
        low, high = (2595 * np.log10(1 + edge / 700) for edge in (60, 7600))
        assert abs(int(bands.argmax()) - ((mel - low) / (high - low) * 65 - 1)) <= 1


def test_sizes_that_cannot_work_are_named() -> None:
    with pytest.raises(CheckpointError, match="multiple of 4"):
        CausalAudioEncoder(dataclasses.replace(SMALL, samples_per_frame=642))
