import onnx_ir as ir
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.bundles.graph_runs import exported
from helpers.bundles.tiny import TINY, TINY_CLEAN
from torch import nn

from rap_edge.export.capture.flops import chunk_flops, count_flops


def flops(module: nn.Module, *arguments: torch.Tensor) -> int:
    return count_flops(ir.serde.serialize_model(exported(module, *arguments)), {})


def test_a_linear_layer_counts_two_per_weight_and_row() -> None:
    assert flops(nn.Linear(8, 16), torch.randn(3, 8)) == 2 * 3 * 8 * 16


def test_a_grouped_convolution_counts_its_filters_at_every_position() -> None:
    assert flops(nn.Conv2d(8, 6, 3, groups=2), torch.randn(1, 8, 10, 10)) == 2 * 6 * (8 // 2 * 9) * 8 * 8


def test_attention_counts_scores_and_weighted_values() -> None:
    class Attend(nn.Module):
        def forward(self, query, key):
            return F.scaled_dot_product_attention(query, key, key)

    assert flops(Attend(), torch.randn(1, 2, 5, 4), torch.randn(1, 2, 7, 4)) == 2 * (2 * 2 * 5 * 7 * 4)


def test_a_chunk_runs_the_denoiser_once_per_step_and_reencodes_only_for_a_clean_carry() -> None:
    each = {"audio_encoder": 1, "conditioner": 10, "dit": 100, "vae_encoder": TINY.chunk_frames * 10**6}
    each["vae_decoder"] = 1000
    steps = len(TINY.timesteps) - 1
    assert chunk_flops(TINY, each) == 1011 + 100 * steps
    assert chunk_flops(TINY_CLEAN, each) == 1011 + 100 * steps + TINY_CLEAN.carried_frames * 10**6
