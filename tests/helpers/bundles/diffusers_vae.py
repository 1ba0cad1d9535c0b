"""The LTX VAE of diffusers as a reference."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLLTXVideo


def reference_vae(**changes: object) -> AutoencoderKLLTXVideo:
    sizes: dict[str, object] = {
        "latent_channels": 6,
        "block_out_channels": (8, 12, 16, 16),
        "layers_per_block": (1, 1, 2, 1, 1),
        "spatio_temporal_scaling": (True, True, True, False),
    } | changes
    for key in ("block_out_channels", "layers_per_block", "spatio_temporal_scaling"):
        sizes.setdefault(f"decoder_{key}", sizes[key])
    levels = len(sizes["block_out_channels"])  # type: ignore[arg-type]
    per_level = {
        "down_block_types": ("LTXVideoDownBlock3D",) * levels,
        "downsample_type": ("conv",) * levels,
        "upsample_residual": (False,) * levels,
        "upsample_factor": (1,) * levels,
        "decoder_inject_noise": (False,) * (levels + 1),
    }
    torch.manual_seed(3)
    vae = AutoencoderKLLTXVideo(**(per_level | sizes)).eval()
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 2.0)
    return vae
