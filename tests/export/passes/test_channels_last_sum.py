import onnx_ir as ir
import torch
from helpers.bundles.graph_runs import assert_same, lifted
from torch import nn

from rap_edge.export.passes.channels_last_norm import channels_last_norm
from rap_edge.export.passes.channels_last_shuffle import channels_last_shuffle
from rap_edge.export.passes.channels_last_sum import channels_last_sum
from rap_edge.models.nano_vae import Block


def _lonely_transpositions(model: ir.Model) -> int:
    """How many move pictures between channels first and last with no convolution beside them to absorb it."""
    count = 0
    for node in model.graph:
        if node.op_type == "Transpose" and len(node.inputs[0].shape) == 4 and not node.outputs[0].is_graph_output():
            beside = [node.inputs[0].producer(), *node.outputs[0].consumers()]
            count += not any(other is not None and other.op_type == "Conv" for other in beside)
    return count


def test_a_residual_block_adds_where_its_input_lies() -> None:
    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shuffle = nn.Sequential(nn.Conv2d(4, 24, 1), nn.PixelShuffle(2))
            self.block = Block(6, 1e-4)
            self.out = Block(6, 1e-4)

        def forward(self, x):
            return self.out(self.block(self.shuffle(x)))

    module, x = Blocks(), torch.randn(1, 4, 4, 3)
    model = lifted(module, x)
    for run_pass in (channels_last_shuffle, channels_last_norm):
        run_pass(model)
    assert _lonely_transpositions(model) == 2
    assert channels_last_sum(model) == 2
    assert _lonely_transpositions(model) == 0
    assert_same(model, module, x)
