"""Where published checkpoints keep their networks, and what they hold that no network of ours needs."""

from __future__ import annotations

from dataclasses import dataclass

from rap_edge.runtime.spec import ModelSpec

from ..presets import FLASHHEAD_LITE, FLASHHEAD_PRO

AUDIO_FOLDER = "wav2vec2-base-960h"
# Left over from the text-to-video base model; the published inference code does not call them.
DIT_UNUSED = ("text_embedding.", "audio_emb.")
# Tensors of the heads for pre-training, recognition and classification, which no hidden state depends on.
HEADS = (
    *("masked_spec_embed", "lm_head.", "quantizer.", "project_q.", "project_hid.", "adapter."),
    *("projector.", "classifier.", "layer_weights"),
)
WAN_CLASS = "AutoencoderKLWan"
# Strength of the noise that LTX's decoders were trained with, and that is not injected.
NOISE = (".per_channel_scale1", ".per_channel_scale2")
POSITIONAL = "encoder.pos_conv_embed.conv."
# Of a weight that is stored as its length and its direction.
WEIGHT_NORMS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))


@dataclass(frozen=True)
class Member:
    """One published model of FlashHead's family: its spec and its folders."""

    spec: ModelSpec
    dit_folder: str
    vae_folder: str


LITE = Member(FLASHHEAD_LITE, "Model_Lite", "VAE_LTX")
PRO = Member(FLASHHEAD_PRO, "Model_Pro", "VAE_Wan")
FAMILY = (LITE, PRO)
