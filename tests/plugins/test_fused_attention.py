"""The fused attention's kernel source, run on the CPU by an emulator of the instructions that it uses."""

import ctypes
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fused_attention import Case, Counts, Inputs, Params, Tensor
from helpers.gpu.emulated_attention import A100, H100, NARROW_HOPPER, SMALL_HOPPER, SOURCES, Device, Launch, build
from helpers.places import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator is compiled by g++, which is missing")

Emulate = Callable[..., Counts]

DEVICES = {"warps": A100, "warpgroups": H100, "keys that stay": SMALL_HOPPER, "keys in a ring": NARROW_HOPPER}
on_every_kind = pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)


def complaint(
    library: ctypes.CDLL, params: Params, counts: Counts | None = None, seed: int = 0, device: Device = A100
) -> str:
    return library.emulate(params, device, seed, counts or Counts()).decode()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="module")
def emulate(library: ctypes.CDLL) -> Emulate:
    """Run a case; what no GPU would allow fails the test."""

    def run(inputs: Inputs, device: Device = A100) -> Counts:
        counts = Counts()
        assert complaint(library, inputs.params(), counts, inputs.case.seed, device) == ""
        assert inputs.guard_is_whole()
        return counts

    return run


RAP = Case(head_dim=128, frames=2, query_tokens=256, key_tokens=32)
NANO = Case(head_dim=64, heads=4, frames=5, query_tokens=64, key_tokens=8, alpha=0.4)
ODD = Case(head_dim=128, batch=2, heads=1, frames=3, query_tokens=19, key_tokens=37, alpha=0.7)
LONG = Case(head_dim=128, frames=2, query_tokens=70, key_tokens=170)
SEPARATE = replace(ODD, full_tokens=45)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize(
    "case", [RAP, NANO, ODD, SEPARATE, LONG], ids=["rap", "nano", "odd sizes", "separate branches", "long"]
)
@on_every_kind
def test_the_kernel_agrees_with_two_attentions_in_float64(
    emulate: Emulate, device: Device, case: Case, dtype: torch.dtype
) -> None:
    inputs = Inputs(replace(case, dtype=dtype))
    emulate(inputs, device)
    # A correctly rounded result is within half a unit.
    assert inputs.error() < 0.5


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Case,
        batch=st.integers(1, 2),
        heads=st.integers(1, 2),
        head_dim=st.sampled_from([64, 128]),
        frames=st.integers(1, 4),
        query_tokens=st.integers(1, 40) | st.integers(100, 130),
        key_tokens=st.integers(1, 70),
        full_tokens=st.just(0) | st.integers(1, 100),
        dtype=st.sampled_from([torch.float16, torch.bfloat16]),
        alpha=st.floats(0.0, 1.0, width=32),
        gain=st.sampled_from([0.1, 1.0, 20.0]),
        seed=st.integers(0, 1 << 30),
    ),
    st.sampled_from(list(DEVICES.values())),
)
def test_any_number_of_frames_tokens_heads_and_rows_works(emulate: Emulate, case: Case, device: Device) -> None:
    inputs = Inputs(case)
    emulate(inputs, device)
    assert inputs.error() < 1.0


@on_every_kind
def test_a_window_far_below_the_largest_score_keeps_its_weight(emulate: Emulate, device: Device) -> None:
    inputs = Inputs(replace(NANO, heads=1, frames=2))
    inputs.views["query"].fill_(8.0)
    inputs.views["key"][:, : NANO.key_tokens].fill_(-8.0)
    inputs.views["key"][:, NANO.key_tokens :].fill_(8.0)
    emulate(inputs, device)
    assert inputs.error() < 0.5


@on_every_kind
def test_a_branch_without_weight_is_not_read(emulate: Emulate, device: Device) -> None:
    for alpha, unused in ((0.0, ("key", "value")), (1.0, ("full_key", "full_value"))):
        inputs = Inputs(replace(SEPARATE, alpha=alpha))
        for name in unused:
            inputs.views[name].fill_(math.nan)
        emulate(inputs, device)
        assert torch.isfinite(inputs.views["output"]).all()


@on_every_kind
def test_nan_is_passed_on_to_the_rows_that_it_reaches_and_to_no_others(emulate: Emulate, device: Device) -> None:
    inputs = Inputs(replace(ODD, batch=1, heads=1))
    inputs.views["query"][0, 5, 3] = math.nan
    emulate(inputs, device)
    finite = torch.isfinite(inputs.views["output"][0]).all(-1)
    assert not finite[5]
    assert finite.sum() == len(finite) - 1


@on_every_kind
def test_the_output_may_replace_the_query(emulate: Emulate, device: Device) -> None:
    inputs = Inputs(ODD)
    expected = inputs.reference()
    inputs.buffers["output"], inputs.views["output"] = inputs.buffers["query"], inputs.views["query"]
    emulate(inputs, device)
    assert (inputs.views["output"].double() - expected).abs().max() < 0.01


@pytest.mark.parametrize("frames", [2, 3])
@on_every_kind
def test_shared_branches_cost_no_more_products_than_the_full_attention_alone(
    emulate: Emulate, device: Device, frames: int
) -> None:
    case = replace(RAP, frames=frames)
    mixed, full = emulate(Inputs(case), device), emulate(Inputs(replace(case, alpha=0.0)), device)
    assert mixed.multiplies == full.multiplies
    rows, keys, depth = frames * RAP.query_tokens, frames * RAP.key_tokens, RAP.head_dim
    assert mixed.multiplies * 16 * 8 * 16 == 2 * rows * keys * depth


@on_every_kind
def test_the_window_branch_alone_computes_its_window_alone(emulate: Emulate, device: Device) -> None:
    counts = emulate(Inputs(replace(RAP, frames=3, alpha=1.0)), device)
    rows = 3 * RAP.query_tokens
    assert counts.multiplies * 16 * 8 * 16 == 2 * rows * RAP.key_tokens * RAP.head_dim


def test_a_window_in_several_tiles_is_scored_twice_and_nothing_else_is(emulate: Emulate) -> None:
    case = replace(RAP, key_tokens=64, query_tokens=128)
    mixed, full = emulate(Inputs(case)), emulate(Inputs(replace(case, alpha=0.0)))
    again = case.frames * case.query_tokens * case.key_tokens * case.head_dim
    assert (mixed.multiplies - full.multiplies) * 16 * 8 * 16 == again


def launch(library: ctypes.CDLL, case: Case, device: Device) -> Launch:
    """What would be launched; nothing is read, so any addresses do."""
    anywhere = Tensor(16, 0, case.heads * case.head_dim)
    names = ("query", "key", "value", "output")
    sizes = {
        name: getattr(case, name) for name in ("batch", "heads", "head_dim", "frames", "query_tokens", "key_tokens")
    }
    params = Params(
        **dict.fromkeys(names, anywhere), **sizes, full_tokens=case.frames * case.key_tokens, alpha=case.alpha
    )
    found = Launch()
    assert library.plan_launch(params, device, found) == 0
    return found


# The model's whole size.
WHOLE = Case(batch=2, heads=12, head_dim=128, frames=11, query_tokens=256, key_tokens=32)


def test_an_h100_keeps_a_heads_keys_and_is_filled_twice_by_two_tiles_of_rows_each(library: ctypes.CDLL) -> None:
    found = launch(library, WHOLE, H100)
    assert (found.warpgroups, found.warps, found.slots, found.tiles_per_block) == (1, 8, 6, 2)
    assert found.shared_bytes == 6 * 64 * 128 * 4 <= H100.shared_bytes
    assert list(found.grid) == [11, 12, 2]
    assert 2 * H100.multiprocessors == 11 * 12 * 2


def test_keys_that_do_not_fit_go_through_a_ring(library: ctypes.CDLL) -> None:
    found = launch(library, replace(WHOLE, key_tokens=64), H100)
    assert (found.warpgroups, found.slots, found.tiles_per_block) == (1, 3, 1)
    assert list(found.grid) == [22, 12, 2]


def test_other_gpus_take_products_of_warps_and_ask_for_no_more_shared_memory_than_a_launch_has(library) -> None:
    for capability in (75, 80, 86, 87, 89, 100, 120):
        found = launch(library, WHOLE, Device(capability, 108, 163 << 10))
        assert (found.warpgroups, found.shared_bytes) == (0, 48 << 10)
        # Eight warps do not fit the registers of a Turing.
        assert found.warps == (4 if capability == 75 else 8)


def test_blocks_are_small_where_large_ones_would_leave_multiprocessors_idle(library: ctypes.CDLL) -> None:
    window_alone = replace(WHOLE, batch=1, frames=5, alpha=1.0)
    for device, blocks in ((A100, 10 * 12), (H100, 20 * 12)):
        found = launch(library, window_alone, device)
        assert found.warps == 4
        assert found.grid[0] * found.grid[1] * found.grid[2] == blocks


def test_shared_memory_is_read_without_bank_conflicts(emulate: Emulate) -> None:
    for case in (RAP, NANO):
        counts = emulate(Inputs(case))
        assert counts.loads > 0
        assert counts.conflicts == 0


def changed(inputs: Inputs, **changes: object) -> Params:
    params = inputs.params()
    for name, value in changes.items():
        setattr(params, name, value)
    return params


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"head_dim": 96}, "head_dim must be 64 or 128"),
        ({"dtype": 2}, "dtype must be"),
        ({"alpha": 1.5}, "alpha must lie"),
        ({"alpha": math.nan}, "alpha must lie"),
        ({"scale": -1.0}, "scale must be"),
        ({"scale": math.inf}, "scale must be"),
        ({"batch": 0}, "A size is below 1"),
        ({"query_tokens": 1 << 30}, "A size is below 1 or too large"),
        ({"batch": 1 << 16}, "A size is below 1 or too large"),
        ({"full_tokens": 5}, "Shared branches need"),
        ({"query": Tensor(None, 0, 128)}, "has no address"),
        ({"key": Tensor(8, 0, 64)}, "multiples of 16 bytes"),
        ({"value": Tensor(16, 0, 68)}, "multiples of 16 bytes"),
        ({"output": Tensor(16, 0, 56)}, "A token stride must"),
        ({"output": Tensor(16, -64, 64)}, "A token stride must"),
    ],
)
def test_impossible_parameters_are_refused_in_a_sentence(library, changes: dict[str, object], sentence: str) -> None:
    assert sentence in complaint(library, changed(Inputs(Case()), **changes))


KERNEL, SOFTMAX, WALK = "hybrid_attention_kernel.cuh", "hybrid_softmax.cuh", "key_walk.cuh"
WARPGROUP = "warpgroup_products.cuh"
# What is broken: in which file, what, how, and on which kind of GPU it shows.
MUTANTS = {
    "no barrier before a slot is filled again": (
        KERNEL,
        "        tile::block_barrier();\n        fetch(a, walk, step + kTilesAhead);",
        "        fetch(a, walk, step + kTilesAhead);",
        A100,
    ),
    "a wait that is one tile too short": (KERNEL, "wait_copies<kTilesAhead - 1>", "wait_copies<kTilesAhead>", A100),
    "no mask behind the last key": (
        SOFTMAX,
        "scores[group][n][i] = -INFINITY;",
        "scores[group][n][i] = scores[group][n][i];",
        A100,
    ),
    "values beyond the end are read": (
        WALK,
        "(valid ? number : 0) * tensor.token_stride, valid",
        "number * tensor.token_stride, valid || true",
        A100,
    ),
    "the window's tile is met among the others too": (WALK, "? step + window_tiles : step", "? step : step", A100),
    "no swizzle": (WALK, "((vector ^ (row & 7)) * kVectorBytes)", "(vector * kVectorBytes)", A100),
    "a sum that does not follow its shift": (SOFTMAX, "scale_sum(group, row, shrink);", "", A100),
    "a window without its part of the full branch": (SOFTMAX, " + factor * unit;", ";", A100),
    "products start before copies are published": (WARPGROUP, "{ tile::publish_copies(); }", "{}", H100),
    "scores are read while they are computed": (
        WARPGROUP,
        "        tile::commit_products();\n        tile::wait_products<0>();",
        "        tile::commit_products();",
        H100,
    ),
    "the last product is not waited for": (
        WARPGROUP,
        "void settle() { tile::wait_products<0>(); }",
        "void settle() {}",
        H100,
    ),
    "a product without a fence": (
        WARPGROUP,
        "        tile::fence_products();\n#pragma unroll\n        for (int step = 0; step < Keys / 16",
        "#pragma unroll\n        for (int step = 0; step < Keys / 16",
        H100,
    ),
    "panels that lie elsewhere": (WARPGROUP, "uint64_t{Layout::kPanelBytes / 16} << 16", "uint64_t{64} << 16", H100),
    "a slot is filled that a product still reads": (
        KERNEL,
        "            Products::settle(); // a slot that",
        "            // a slot that",
        NARROW_HOPPER,
    ),
    "the next rows' keys are copied over those still read": (
        KERNEL,
        "            tile::block_barrier(); // everybody",
        "            // everybody",
        SMALL_HOPPER,
    ),
    "the last frame's window is taken for this one's": (
        KERNEL,
        "a.window_tokens == 0 || frame == frame_inside",
        "true",
        SMALL_HOPPER,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_emulator_notices(tmp_path: Path, name: str) -> None:
    file, before, after, device = MUTANTS[name]
    source = (SOURCES / "src" / file).read_text()
    assert source.count(before) == 1
    mutant = build(tmp_path, {file: source.replace(before, after)})
    shared = Case(head_dim=128, frames=3, query_tokens=200, key_tokens=100, gain=2.0)
    wrong = False
    small = replace(shared, key_tokens=40)
    cases = [replace(shared, gain=0.5), replace(shared, full_tokens=90), small, replace(small, full_tokens=40)]
    for seed, case in enumerate(cases * 2):
        inputs, counts = Inputs(replace(case, seed=seed)), Counts()
        said = complaint(mutant, inputs.params(), counts, seed, device)
        wrong = wrong or said != "" or inputs.error() > 1.0 or counts.conflicts > 0
    assert wrong


def test_the_gpu_harness_skips_with_a_reason_where_there_is_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    script = ROOT / "benchmarks" / "hybrid_attention.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("skipped: ")


def test_the_floors_count_what_must_be_moved_and_computed() -> None:
    import hybrid_attention as harness

    rap = harness.SPEED["rap-1.3b"]
    query, keys = 2 * 12 * 128 * 11 * 256, 2 * 12 * 128 * 352
    assert harness.moved_bytes(rap) == 2 * (2 * query + 2 * keys)
    assert harness.operations(rap) == 4 * 352 * query
    assert harness.operations(harness.SPEED["rap-1.3b, separate"]) == 4 * (352 + 32) * query
