"""The audio encoder against transformers' Wav2Vec2Model and HubertModel as independent references."""

from __future__ import annotations

import json
import os

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import (
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
)

from rap_edge.models.audio_encoder import AudioEncoder, AudioEncoderConfig, resample_features
from rap_edge.models.checkpoints.published import hugging_face_audio_encoder
from rap_edge.runtime.errors import AudioError, CheckpointError

SHAPES = {
    "base": {},
    "large": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
    "odd_kernel": {"num_conv_pos_embeddings": 7, "num_conv_pos_embedding_groups": 3, "hidden_size": 24},
    "one_layer": {"num_hidden_layers": 1, "num_attention_heads": 1, "layer_norm_eps": 1e-3},
    "activations": {"hidden_act": "gelu_new", "feat_extract_activation": "silu"},
}
HUBERTS = {
    "hubert_base": {},
    "hubert_large": SHAPES["large"],
    "hubert_plain_projection": {"feat_proj_layer_norm": False},
    "hubert_batch_norm": {"conv_pos_batch_norm": True},
}
CASES = [(Wav2Vec2Model, changes) for changes in SHAPES.values()] + [
    (HubertModel, changes) for changes in HUBERTS.values()
]


def reference_model(kind: type[PreTrainedModel] = Wav2Vec2Model, **changes: object) -> PreTrainedModel:
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
    config = HubertConfig if kind is HubertModel else Wav2Vec2Config
    model = kind(config(**(sizes | changes))).eval()
    with torch.no_grad():
        for values in (*model.parameters(), *model.buffers()):
            if values.dim() == 1:
                values.add_(0.1 * torch.randn_like(values))
    return model


class Interpolated(torch.nn.Module):
    """FlashHead's order: convolutions, interpolation to the video's rate, then projection and transformer."""

    def __init__(self, extractor: torch.nn.Module, frames: int) -> None:
        super().__init__()
        self.extractor = extractor
        self.frames = frames

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.extractor(waveform), size=self.frames, mode="linear", align_corners=True)


def reference_states(
    model: PreTrainedModel, waveform: torch.Tensor, frames: int, *, normalise: bool = True
) -> torch.Tensor:
    model.feature_extractor = Interpolated(model.feature_extractor, frames)
    normalised = (waveform - waveform.mean()) / torch.sqrt(waveform.var(correction=0) + 1e-7)
    normalised = normalised if normalise else waveform
    output = model(normalised, output_hidden_states=True)
    # Recent versions list the last state before the stable variant's final normalisation; older ones after it.
    return torch.stack((*output.hidden_states[1:-1], output.last_hidden_state), dim=2)[0]


def speech_like(samples: int, batch: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(1)) + 0.02


@pytest.mark.parametrize(("kind", "changes"), CASES, ids=[*SHAPES, *HUBERTS])
@pytest.mark.parametrize("samples", [16000, 6400 + 320])
def test_hidden_states_equal_transformers(tmp_path, kind, changes, samples):
    model = reference_model(kind, **changes)
    model.save_pretrained(tmp_path)
    waveform = speech_like(samples)
    with torch.no_grad():
        ours = hugging_face_audio_encoder(tmp_path)(waveform)
        theirs = reference_states(model, waveform, round(samples / 640))
    assert ours.shape == (round(samples / 640), model.config.num_hidden_layers, model.config.hidden_size)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_the_head_of_a_pretraining_checkpoint_is_left_out_as_chinese_wav2vec2_has_it(tmp_path):
    model = reference_model(Wav2Vec2ForPreTraining)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        ours = hugging_face_audio_encoder(tmp_path)(speech_like(6400))
        theirs = reference_states(model.wav2vec2, speech_like(6400), 10)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_preprocessor_that_normalises_nothing_is_heeded(tmp_path):
    model = reference_model()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "sampling_rate": 16000}))
    with torch.no_grad():
        ours = hugging_face_audio_encoder(tmp_path)(speech_like(6400))
        theirs = reference_states(model, speech_like(6400), 10, normalise=False)
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
        ({"model_type": "wavlm"}, "model_type 'wavlm' but only wav2vec2 and hubert are supported"),
        ({"hidden_act": "relu6"}, "hidden_act must be one of gelu"),
        ({"adapter_attn_dim": 16}, "adapters of one language"),
        ({"do_normalize": 1}, "do_normalize must be true or false"),
        ({"hidden_size": "768"}, "hidden_size must be a whole number"),
        ({"conv_dim": [16, 16]}, "must have the same length"),
        ({"num_attention_heads": 7}, "must split into 7 heads"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        AudioEncoderConfig.from_hugging_face(changes, "config.json")
