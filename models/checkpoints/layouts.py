"""Where published checkpoints keep their networks, and what they hold that no network of ours needs."""

from __future__ import annotations

DIT_FOLDER, VAE_FOLDER, AUDIO_FOLDER = "Model_Lite", "VAE_LTX", "wav2vec2-base-960h"
# Left over from the text-to-video base model; the published inference code does not call them.
DIT_UNUSED = ("text_embedding.", "audio_emb.")
# Tensors of the heads for pre-training, recognition and classification, which no hidden state depends on.
HEADS = (
    *("masked_spec_embed", "lm_head.", "quantizer.", "project_q.", "project_hid.", "adapter."),
    *("projector.", "classifier.", "layer_weights"),
)
POSITIONAL = "encoder.pos_conv_embed.conv."
# Of a weight that is stored as its length and its direction.
WEIGHT_NORMS = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
