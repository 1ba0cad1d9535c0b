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
from helpers.gpu.emulated_attention import KERNEL, SOURCES, build
from helpers.places import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator is compiled by g++, which is missing")

Emulate = Callable[[Inputs], Counts]


def complaint(library: ctypes.CDLL, params: Params, counts: Counts | None = None, seed: int = 0) -> str:
    return library.emulate(params, seed, counts or Counts()).decode()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="module")
def emulate(library: ctypes.CDLL) -> Emulate:
    """Run a case; what no GPU would allow fails the test."""

    def run(inputs: Inputs) -> Counts:
        counts = Counts()
        assert complaint(library, inputs.params(), counts, inputs.case.seed) == ""
        assert inputs.guard_is_whole()
        return counts

    return run


RAP = Case(head_dim=128, frames=2, query_tokens=256, key_tokens=32)
NANO = Case(head_dim=64, heads=4, frames=5, query_tokens=64, key_tokens=8, alpha=0.4)
ODD = Case(head_dim=128, batch=2, heads=3, frames=3, query_tokens=19, key_tokens=37, alpha=0.7)
SEPARATE = replace(ODD, full_tokens=45)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("case", [RAP, NANO, ODD, SEPARATE], ids=["rap", "nano", "odd sizes", "separate branches"])
def test_the_kernel_agrees_with_two_attentions_in_float64(emulate: Emulate, case: Case, dtype: torch.dtype) -> None:
    inputs = Inputs(replace(case, dtype=dtype))
    emulate(inputs)
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
    )
)
def test_any_number_of_frames_tokens_heads_and_rows_works(emulate: Emulate, case: Case) -> None:
    inputs = Inputs(case)
    emulate(inputs)
    assert inputs.error() < 1.0


def test_a_window_far_below_the_largest_score_keeps_its_weight(emulate: Emulate) -> None:
    inputs = Inputs(replace(NANO, heads=1, frames=2))
    inputs.views["query"].fill_(8.0)
    inputs.views["key"][:, : NANO.key_tokens].fill_(-8.0)
    inputs.views["key"][:, NANO.key_tokens :].fill_(8.0)
    emulate(inputs)
    assert inputs.error() < 0.5


def test_a_branch_without_weight_is_not_read(emulate: Emulate) -> None:
    for alpha, unused in ((0.0, ("key", "value")), (1.0, ("full_key", "full_value"))):
        inputs = Inputs(replace(SEPARATE, alpha=alpha))
        for name in unused:
            inputs.views[name].fill_(math.nan)
        emulate(inputs)
        assert torch.isfinite(inputs.views["output"]).all()


def test_nan_is_passed_on_to_the_rows_that_it_reaches_and_to_no_others(emulate: Emulate) -> None:
    inputs = Inputs(replace(ODD, batch=1, heads=1))
    inputs.views["query"][0, 5, 3] = math.nan
    emulate(inputs)
    finite = torch.isfinite(inputs.views["output"][0]).all(-1)
    assert not finite[5]
    assert finite.sum() == len(finite) - 1


def test_the_output_may_replace_the_query(emulate: Emulate) -> None:
    inputs = Inputs(ODD)
    expected = inputs.reference()
    inputs.buffers["output"], inputs.views["output"] = inputs.buffers["query"], inputs.views["query"]
    emulate(inputs)
    assert (inputs.views["output"].double() - expected).abs().max() < 0.01


def test_shared_branches_cost_no_more_products_than_the_full_attention_alone(emulate: Emulate) -> None:
    mixed, full = emulate(Inputs(RAP)), emulate(Inputs(replace(RAP, alpha=0.0)))
    assert mixed.multiplies == full.multiplies
    rows, keys, depth = RAP.frames * RAP.query_tokens, RAP.frames * RAP.key_tokens, RAP.head_dim
    assert mixed.multiplies * 16 * 8 * 16 == 2 * rows * keys * depth


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


MUTANTS = {
    "no barrier before a stage is filled again": ("tile::block_barrier();\n        fetch_tile", "fetch_tile"),
    "a wait that is one tile too short": ("wait_copies<kStages - 2>", "wait_copies<kStages - 1>"),
    "no mask behind the last key": ("= -INFINITY;\n                    }", "= scores[n][i];\n                    }"),
    "values beyond the end are read": (
        "safe * value.token_stride + column, valid",
        "token * value.token_stride + column, true",
    ),
    "the window is counted twice": ("token += a.window_tokens;", ""),
    "no swizzle": ("(vector ^ (row & 7))", "vector"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_emulator_notices(tmp_path: Path, name: str) -> None:
    source = (SOURCES / "src" / KERNEL).read_text()
    before, after = MUTANTS[name]
    assert source.count(before) == 1
    mutant = build(tmp_path, source.replace(before, after))
    case = replace(ODD, head_dim=64, query_tokens=100, key_tokens=40)
    wrong = False
    for seed in range(5):
        inputs, counts = Inputs(replace(case, seed=seed)), Counts()
        said = complaint(mutant, inputs.params(), counts, seed)
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
