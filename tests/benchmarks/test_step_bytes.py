"""The bytes of a denoise step: what they are counted for, and how a sample of blocks becomes a whole step."""

import onnx
import pytest
from step_bytes import BLOCKS, Count, Kernel, count_kernels, count_nodes, group_of, node_of, table

from rap_edge.export.plans.truth.program import Program, Step

BLOCK = "dit.blocks.1"


def test_the_middle_block_stands_for_all_between_the_ends() -> None:
    kernels = [Kernel("a", block, 10, 4) for block in range(-1, BLOCKS)]
    count = Count.of(kernels, 30)
    assert (count.moved["a"], count.least["a"], count.kernels) == (310, 124, 31)


@pytest.mark.parametrize(
    ("layers", "attends", "group"),
    [
        (("self_attn.v/MatMul_1", "self_attn.k/MatMul_1"), False, "queries, keys, values"),
        (
            ("self_attn.norm_q/Div_1:5", "self_attn/Gather_1", "self_attn/Attention_1"),
            False,
            "norms, rotation of queries, keys",
        ),
        (("self_attn/Attention_1",), True, "self-attention"),
        (("self_attn.v/Add_1", "self_attn/Attention_1"), False, "copies around self-attention"),
        (("cross_attn.o/MatMul_1", "/Add_5"), False, "output of audio attention, sum"),
        (("/Mul_2", "norm3/LayerNormalization_1"), False, "layer norms, modulation"),
    ],
)
def test_a_kernel_is_counted_for_its_product_or_else_its_norm(layers, attends: bool, group: str) -> None:
    names = [BLOCK + name if name.startswith("/") else f"{BLOCK}.{name}" for name in layers]
    assert group_of([node_of(name) for name in names], attends=attends) == group


def test_a_node_inside_a_function_belongs_to_its_caller() -> None:
    place = node_of(f"node_of_full | {BLOCK}.cross_attn.attend/HybridAttention_1 (HybridAttention)")
    assert (place.block, place.module, place.op_type) == (1, "cross_attn.attend", "HybridAttention")


def test_kernels_that_others_call_and_those_that_move_nothing_are_left_out() -> None:
    product = Step("fully_connected", "f", (), (f"{BLOCK}.ffn.0/MatMul_1",), 70)
    programs = [Program(("sm89",), (product, Step("signal", "s", (), ()))), Program(("*",), (product,))]
    assert count_kernels(programs) == [Kernel("feed-forward, gate, sum", 1, 70)]


def test_products_of_the_same_tokens_read_them_once_at_least_and_sums_their_other_term() -> None:
    graph = onnx.parser.parse_graph(
        "dit (float16[1,4,8] x) => (float16[1,4,8] y)"
        "<float16[8,8] a, float16[8,8] b, float16[8] c, float16[1,4,8] p, float16[1,4,8] q, float16[1,4,8] r>"
        "{ p = MatMul(x, a) q = MatMul(x, b) r = Add(p, c) y = Add(r, q) }"
    )
    for node, name in zip(graph.node, ("q/MatMul_1", "k/MatMul_1", "q/Add_1", "/Add_4"), strict=True):
        node.name = f"{BLOCK}.self_attn.{name}" if not name.startswith("/") else BLOCK + name
    graph.value_info.extend(onnx.parser.parse_graph("g (float16[8,8] a, float16[8,8] b, float16[8] c) => () {}").input)
    moved = [(kernel.moved, kernel.least) for kernel in count_nodes(onnx.helper.make_model(graph))]
    tokens, weight, bias = 64, 128, 16
    assert moved == [
        (2 * tokens + weight, 2 * tokens + weight),
        (2 * tokens + weight, tokens + weight),
        (2 * tokens + bias, 0),
        (3 * tokens, tokens),
    ]


def test_the_table_begins_with_what_moves_most_beyond_the_least() -> None:
    nodes = Count({"a": 9_000_000, "b": 8_000_000}, {"a": 2_000_000}, 9)
    before, after = Count({"a": 5_000_000, "b": 4_000_000}, {}, 4), Count({"a": 4_000_000, "b": 1_000_000}, {}, 3)
    rows = table(nodes, before, after).splitlines()[2:]
    assert rows == [
        "| b | 8 | 4 | 1 | 0 | 4 | 1 |",
        "| a | 9 | 5 | 4 | 2 | 3 | 2 |",
        "| all | 17 | 9 | 5 | 2 | 7 | 3 |",
        "| kernels | 9 | 4 | 3 | | | |",
    ]
