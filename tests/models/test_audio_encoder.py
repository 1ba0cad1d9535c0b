"""The audio encoder against transformers' Wav2Vec2Model as an independent reference."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import Wav2Vec2Config, Wav2Vec2Model

from rap_edge.models.audio_encoder import AudioEncoder, AudioEncoderConfig, resample_features
from rap_edge.models.checkpoints.published import hugging_face_audio_encoder
from rap_edge.runtime.errors import AudioError, CheckpointError

SHAPES = {
    "base": {},
    "large": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
    "odd_kernel": {"num_conv_pos_embeddings": 7, "num_conv_pos_embedding_groups": 3, "hidden_size": 24},
    "one_layer": {"num_hidden_layers": 1, "num_attention_heads": 1, "layer_norm_eps": 1e-3},
}


def reference_model(**changes: object) -> Wav2Vec2Model:
    sizes: dict[str, object] = {
        "conv_dim": [16] * 7,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    torch.manual_seed(5)
    model = Wav2Vec2Model(Wav2Vec2Config(**(sizes | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


class Interpolated(torch.nn.Module):
    """FlashHead's order: convolutions, interpolation to the video's rate, then projection and transformer."""

    def __init__(self, extractor: torch.nn.Module, frames: int) -> None:
        super().__init__()
        self.extractor = extractor
        self.frames = frames

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.extractor(waveform), size=self.frames, mode="linear", align_corners=True)


def reference_states(model: Wav2Vec2Model, waveform: torch.Tensor, frames: int) -> torch.Tensor:
    model.feature_extractor = Interpolated(model.feature_extractor, frames)
    normalised = (waveform - waveform.mean()) / torch.sqrt(waveform.var(correction=0) + 1e-7)
    output = model(normalised, output_hidden_states=True)
    # Recent versions list the last state before the stable variant's final normalisation; older ones after it.
    return torch.stack((*output.hidden_states[1:-1], output.last_hidden_state), dim=2)[0]


def speech_like(samples: int, batch: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1)) + 0.02


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("samples", [16000, 6400 + 320])
def test_hidden_states_equal_transformers(tmp_path, changes, samples):
    model = reference_model(**changes)
    model.save_pretrained(tmp_path)
    waveform = speech_like(samples)
    with torch.no_grad():
        ours = hugging_face_audio_encoder(tmp_path)(waveform)
        theirs = reference_states(model, waveform, round(samples / 640))
    assert ours.shape == (round(samples / 640), model.config.num_hidden_layers, model.config.hidden_size)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("source", "frames"), [(49, 25), (399, 200), (3, 9), (5, 1), (1, 4)])
def test_resampling_equals_aligned_linear_interpolation(source, frames):
    features = torch.randn(2, source, 6)
    expected = F.interpolate(features.transpose(1, 2), size=frames, mode="linear", align_corners=True).transpose(1, 2)
    torch.testing.assert_close(resample_features(features, frames), expected, atol=1e-4, rtol=0)


SMALL = AudioEncoderConfig(
    conv_dim=(16, 16, 16),
    conv_kernel=(10, 8, 4),
    conv_stride=(5, 8, 4),
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=32,
    num_conv_pos_embeddings=9,
    num_conv_pos_embedding_groups=3,
)


def test_a_batch_equals_its_waveforms_one_by_one():
    encoder = AudioEncoder(SMALL).eval()
    waveforms = speech_like(8000, batch=3)
    batch = encoder.encode(waveforms)
    assert batch.shape == (3, 12, 2, 24)
    for row, waveform in zip(batch, waveforms, strict=True):
        torch.testing.assert_close(row, encoder(waveform[None]), atol=1e-5, rtol=0)


def test_loudness_and_offset_of_the_waveform_do_not_matter():
    encoder = AudioEncoder(SMALL).eval()
    waveform = speech_like(6400)
    torch.testing.assert_close(encoder(waveform), encoder(3 * waveform - 0.5), atol=1e-3, rtol=0)


def test_silence_gives_finite_states():
    assert AudioEncoder(SMALL)(torch.zeros(1, 6400)).isfinite().all()


def test_every_parameter_trains():
    encoder = AudioEncoder(SMALL).train()
    # The last normalisation's gain sees a zero-mean unit state, so a plain sum would hide its inputs.
    encoder.encode(speech_like(6400, batch=2)).square().mul(torch.linspace(0, 1, 24)).sum().backward()
    dead = [
        name for name, parameter in encoder.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert dead == []


def test_audio_shorter_than_a_frame_is_refused():
    with pytest.raises(AudioError, match="too few for one feature frame"):
        AudioEncoder(SMALL)(torch.zeros(1, 100))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "hubert"}, "only 'wav2vec2' is supported"),
        ({"hidden_act": "relu"}, "only 'gelu' is supported"),
        ({"hidden_size": "768"}, "hidden_size must be a whole number"),
        ({"conv_dim": [16, 16]}, "must have the same length"),
        ({"num_attention_heads": 7}, "must split into 7 heads"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        AudioEncoderConfig.from_hugging_face(changes, "config.json")
