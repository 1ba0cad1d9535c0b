"""wav2vec 2.0 and HuBERT as per-video-frame feature extractors.

Sources: wav2vec 2.0 (arXiv 2006.11477) and HuBERT (arXiv 2106.07447), whose network is the same, with the parameter
names of Hugging Face's `Wav2Vec2Model` and `HubertModel`; FlashHead
(arXiv 2602.07449) for resampling the convolutional features to the video's frame rate before the transformer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from rap_edge.runtime.checks.bounds import Count, Real, Whole, shown
from rap_edge.runtime.errors import AudioError, CheckpointError

from .attention import attention
from .config import check_config, check_rules, config_from_dict, known_fields
from .fresh import draw_uniform
from .norms import LayerNorm32

Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"]
MODEL_TYPES = ("wav2vec2", "hubert")
_tanh_gelu = partial(F.gelu, approximate="tanh")
_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "gelu": F.gelu,
        "gelu_new": _tanh_gelu,
        "gelu_pytorch_tanh": _tanh_gelu,
        "relu": F.relu,
        "silu": F.silu,
        "swish": F.silu,
    }
)


@dataclass(frozen=True, kw_only=True)
class AudioEncoderConfig:
    """Sizes of a wav2vec 2.0 or HuBERT encoder; keys are those of Hugging Face's config.json, defaults wav2vec2-base's.

    Attributes:
        conv_dim: channels of each convolutional layer.
        conv_kernel: kernel of each convolutional layer.
        conv_stride: stride of each convolutional layer.
        conv_bias: whether the convolutional layers have a bias.
        feat_extract_norm: "group" normalises the first layer over time, "layer" every layer over channels.
        hidden_size: width of the transformer.
        num_hidden_layers: layers of the transformer; one hidden state each.
        num_attention_heads: attention heads.
        intermediate_size: width of the feed-forward layer.
        layer_norm_eps: epsilon of the transformer's normalisations.
        num_conv_pos_embeddings: kernel of the positional convolution.
        num_conv_pos_embedding_groups: its groups.
        do_stable_layer_norm: normalise before, not after, each sublayer.
        hidden_act: activation of the transformer's feed-forward layers.
        feat_extract_activation: activation of the convolutions.
        feat_proj_layer_norm: whether convolutional features are normalised before their projection.
        conv_pos_batch_norm: whether the positional convolution's input is batch-normalised.
        do_normalize: whether the waveform is brought to zero mean and unit variance (of preprocessor_config.json).
        norm_eps: epsilon of the waveform's normalisation.
        samples_per_frame: audio samples per video frame (640 at 16 kHz and 25 Hz).
    """

    conv_dim: Annotated[tuple[Annotated[int, Whole(1, 8192)], ...], Count(32)] = (512,) * 7
    conv_kernel: Annotated[tuple[Annotated[int, Whole(1, 1024)], ...], Count(32)] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: Annotated[tuple[Annotated[int, Whole(1, 1024)], ...], Count(32)] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    feat_extract_norm: Literal["group", "layer"] = "group"
    hidden_size: Annotated[int, Whole(1, 16384)] = 768
    num_hidden_layers: Annotated[int, Whole(1, 256)] = 12
    num_attention_heads: Annotated[int, Whole(1, 1024)] = 12
    intermediate_size: Annotated[int, Whole(1, 65536)] = 3072
    layer_norm_eps: Annotated[float, Real(0.0, 1.0)] = 1e-5
    num_conv_pos_embeddings: Annotated[int, Whole(1, 4096)] = 128
    num_conv_pos_embedding_groups: Annotated[int, Whole(1, 1024)] = 16
    do_stable_layer_norm: bool = False
    hidden_act: Activation = "gelu"
    feat_extract_activation: Activation = "gelu"
    feat_proj_layer_norm: bool = True
    conv_pos_batch_norm: bool = False
    do_normalize: bool = True
    norm_eps: Annotated[float, Real(0.0, 1.0)] = 1e-7
    samples_per_frame: Annotated[int, Whole(1, 768000)] = 640

    @classmethod
    def from_hugging_face(cls, data: Mapping[str, Any], source: str) -> AudioEncoderConfig:
        """Read a published config.json of wav2vec 2.0 or HuBERT.

        Raises:
            CheckpointError: another model type, adapters in every layer, or a value that cannot work.
        """
        if (kind := data.get("model_type", MODEL_TYPES[0])) not in MODEL_TYPES:
            raise CheckpointError(
                f"{source} says model_type {shown(kind)} but only {' and '.join(MODEL_TYPES)} are supported; use one "
                "of these."
            )
        if data.get("adapter_attn_dim") is not None:
            raise CheckpointError(
                f"{source} says adapter_attn_dim {shown(data['adapter_attn_dim'])}, adapters of one language in every "
                "layer, which are not supported; use a checkpoint without."
            )
        return config_from_dict(cls, known_fields(cls, data), source).validate()

    def validate(self) -> AudioEncoderConfig:
        """Return self if the network can be built.

        Raises:
            CheckpointError: names the first value that cannot work.
        """
        check_config(self, "audio encoder")
        groups = self.num_conv_pos_embedding_groups
        check_rules(
            "audio encoder",
            (
                len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride) >= 1,
                "conv_dim, conv_kernel and conv_stride must have the same length",
            ),
            (
                self.hidden_size % self.num_attention_heads == 0,
                f"hidden_size {self.hidden_size} must split into {self.num_attention_heads} heads",
            ),
            (self.hidden_size % groups == 0, f"hidden_size {self.hidden_size} must split into {groups} groups"),
        )
        return self


class ConvLayer(nn.Module):
    """One strided convolution over time with its normalisation and GELU."""

    def __init__(self, config: AudioEncoderConfig, index: int) -> None:
        super().__init__()
        before, after = (1, *config.conv_dim)[index : index + 2]
        kernel, stride = config.conv_kernel[index], config.conv_stride[index]
        self.conv = nn.Conv1d(before, after, kernel, stride, bias=config.conv_bias)
        self.over_channels = config.feat_extract_norm == "layer"
        self.activation = _ACTIVATIONS[config.feat_extract_activation]
        if self.over_channels:
            self.layer_norm: nn.Module = LayerNorm32(after)
        elif index == 0:
            self.layer_norm = nn.GroupNorm(after, after)
        else:
            self.layer_norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, time] -> [B, channels', time']."""
        x = self.conv(x)
        x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2) if self.over_channels else self.layer_norm(x)
        return self.activation(x)


class FeatureExtractor(nn.Module):
    """The convolutional stack from a waveform to features at about 50 Hz."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(ConvLayer(config, index) for index in range(len(config.conv_dim)))

    def forward(self, waveform: Tensor) -> Tensor:
        """[B, samples] -> [B, time, channels]."""
        x = waveform.unsqueeze(1)
        for layer in self.conv_layers:
            x = layer(x)
        return x.transpose(1, 2)


class FeatureProjection(nn.Module):
    """Normalisation and projection of the convolutional features to the transformer's width."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.layer_norm: nn.Module = nn.Identity()
        if config.feat_proj_layer_norm:
            self.layer_norm = LayerNorm32(config.conv_dim[-1], eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, frames, channels] -> [B, frames, hidden]."""
        result: Tensor = self.projection(self.layer_norm(x))
        return result


class ChannelAffine(nn.Module):
    """A gain and an offset per channel: a batch normalisation with its statistics folded in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, frames, channels] -> the same shape."""
        return x * self.weight + self.bias


class PositionalConv(nn.Module):
    """Relative positions by a wide grouped convolution; its weight norm is folded into `conv.weight`."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        kernel = config.num_conv_pos_embeddings
        self.conv = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            kernel,
            padding=kernel // 2,
            groups=config.num_conv_pos_embedding_groups,
        )
        self.batch_norm: nn.Module = nn.Identity()
        if config.conv_pos_batch_norm:
            self.batch_norm = ChannelAffine(config.hidden_size)
        self.activation = _ACTIVATIONS[config.feat_extract_activation]

    def forward(self, x: Tensor) -> Tensor:
        """[B, frames, hidden] -> the same shape."""
        # An even kernel with symmetric padding gives one frame too many.
        positions = self.conv(self.batch_norm(x).transpose(1, 2))[..., : x.shape[1]]
        return self.activation(positions).transpose(1, 2)


class EncoderAttention(nn.Module):
    """Full self-attention over the feature frames."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """[B, frames, hidden] -> the same shape."""
        result: Tensor = self.out_proj(attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.num_heads))
        return result


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = _ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """[B, frames, hidden] -> the same shape."""
        result: Tensor = self.output_dense(self.activation(self.intermediate_dense(x)))
        return result


class EncoderLayer(nn.Module):
    """One transformer layer, normalised after (default) or before (stable) each sublayer."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.normalise_first = config.do_stable_layer_norm
        self.attention = EncoderAttention(config)
        self.layer_norm = LayerNorm32(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = LayerNorm32(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[B, frames, hidden] -> the same shape."""
        if self.normalise_first:
            x = x + self.attention(self.layer_norm(x))
            result: Tensor = x + self.feed_forward(self.final_layer_norm(x))
            return result
        x = self.layer_norm(x + self.attention(x))
        result = self.final_layer_norm(x + self.feed_forward(x))
        return result


class Encoder(nn.Module):
    """Positions and transformer layers; gives the hidden state after every layer."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.normalise_last = config.do_stable_layer_norm
        self.pos_conv_embed = PositionalConv(config)
        self.layer_norm = LayerNorm32(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor) -> Tensor:
        """[B, frames, hidden] -> [B, frames, layers, hidden]."""
        x = x + self.pos_conv_embed(x)
        if not self.normalise_last:
            x = self.layer_norm(x)
        states = []
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        if self.normalise_last:
            states[-1] = self.layer_norm(x)
        return torch.stack(states, dim=2)


def resample_features(features: Tensor, frames: int) -> Tensor:
    """Linear interpolation over time with aligned ends: [B, time, channels] -> [B, frames, channels].

    Equals `F.interpolate(mode="linear", align_corners=True)`. An exported graph needs no resize operator for it, and
    where the time is fixed indices and weights are constants of the graph.
    """
    last, most = features.shape[1] - 1, max(frames - 1, 1)
    # In whole numbers: a float32 does not tell the places between two frames apart after some minutes.
    position = torch.arange(frames, device=features.device) * last
    left = position // most
    # Eleven bits of the share, then eleven more: numbers that float16 holds, however long the sound.
    rest = (position - left * most) * 2048
    coarse = rest // most
    fine = (rest - coarse * most) * 2048 // most
    weight = ((coarse + fine.to(features.dtype) / 2048) / 2048).unsqueeze(1)
    right = (left + 1).clamp(max=last)
    return features.index_select(1, left) * (1 - weight) + features.index_select(1, right) * weight


class AudioEncoder(nn.Module):
    """Hidden states of wav2vec 2.0 or HuBERT, one row per video frame."""

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.config = config.validate()
        self.feature_extractor = FeatureExtractor(config)
        self.feature_projection = FeatureProjection(config)
        self.encoder = Encoder(config)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights that train from scratch: He for the GELU convolutions, 1/sqrt(fan in) for linears."""
        drawn = []
        for module in self.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.dim() == 1:
                    is_gain = name == "weight"
                    nn.init.constant_(parameter, 1.0 if is_gain else 0.0)
                    continue
                gain = math.sqrt(2.0) if isinstance(module, nn.Conv1d) else 1.0
                drawn.append((parameter, gain * math.sqrt(3.0 / parameter[0].numel())))
        draw_uniform(drawn, generator)

    def frames(self, samples: int) -> int:
        """Feature frames that `samples` audio samples give."""
        return samples // self.config.samples_per_frame

    def encode(self, waveforms: Tensor) -> Tensor:
        """Hidden states of a batch of waveforms.

        Args:
            waveforms: [B, samples] mono audio in -1..1 at 25 * `samples_per_frame` samples per second; its mean
                and variance are normalised here, if the config says so.

        Returns:
            [B, frames, layers, hidden] with frames = samples // samples_per_frame: the state after every
            transformer layer.

        Raises:
            AudioError: the audio is shorter than one frame.
        """
        frames = self.frames(waveforms.shape[1])
        time = waveforms.shape[1]
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            time = (time - kernel) // stride + 1
        if min(frames, time) < 1:
            raise AudioError(f"{waveforms.shape[1]} audio samples are too few for one feature frame; pass more audio.")
        heard = self._normalised(waveforms) if self.config.do_normalize else waveforms
        features = resample_features(self.feature_extractor(heard), frames)
        result: Tensor = self.encoder(self.feature_projection(features))
        return result

    def _normalised(self, waveforms: Tensor) -> Tensor:
        centred = waveforms.float() - waveforms.float().mean(dim=1, keepdim=True)
        variance = (centred * centred).mean(dim=1, keepdim=True)
        return (centred / torch.sqrt(variance + self.config.norm_eps)).to(waveforms.dtype)

    def forward(self, waveform: Tensor) -> Tensor:
        """[1, samples] -> [frames, layers, hidden]; see `encode`."""
        return self.encode(waveform)[0]
