"""Which hybrid attention a plan keeps: TensorRT's own, or the fused one."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.bundles.handmade import hybrid, job
from helpers.gpu.fake_gpu import FakeCudaDriver, FakeTensorRt

from rap_edge.export.hybrid_attention.plugin import register_hybrid_attention
from rap_edge.export.plans.attention_choice import choose_attention
from rap_edge.export.plans.choice import EngineChoice
from rap_edge.export.plans.comparison import Comparison, compare_plans
from rap_edge.export.plans.make_plans import plan_job
from rap_edge.export.plans.network import BuiltPlan, build_network
from rap_edge.export.plans.process import build_plan
from rap_edge.export.plans.truth.claim import Claim
from rap_edge.models.presets import RAP_1_3B, RAP_SMALL
from rap_edge.runtime.bundle.manifest import GraphInfo
from rap_edge.runtime.errors import EngineError, ExportError
from rap_edge.runtime.machine.cuda import Cuda
from rap_edge.runtime.machine.tensorrt_modules import RTX, TENSORRT

CLAIM = Claim("dit", "float16", attention=16, hybrid=4)
OWN = BuiltPlan(b"own", CLAIM, ("a", "b"), 100, 0)
FUSED = BuiltPlan(b"fused", CLAIM.with_plugins(), ("a",), 90, 0)


def chosen(native_ms: float, plugin_ms: float, difference: float) -> tuple[BuiltPlan, dict]:
    times = {"native": native_ms, "plugin": plugin_ms}
    return choose_attention(OWN, lambda: FUSED, lambda plans: Comparison(times, difference))


def test_the_faster_attention_is_kept_and_both_times_are_told() -> None:
    assert chosen(3.0, 2.5, 0.001) == (FUSED, {"chosen": "plugin", "native_ms": 3.0, "plugin_ms": 2.5})
    assert chosen(2.5, 3.0, 0.001) == (OWN, {"chosen": "native", "native_ms": 2.5, "plugin_ms": 3.0})


@pytest.mark.parametrize("difference", [0.3, float("nan")])
def test_an_attention_that_gives_something_else_is_not_kept_however_fast(difference: float) -> None:
    plan, told = chosen(3.0, 1.0, difference)
    assert plan == OWN
    assert "away from those of TensorRT's attention" in told["plugin"]


def test_a_fused_attention_that_cannot_be_built_or_run_is_told_and_does_without() -> None:
    def refused() -> BuiltPlan:
        raise ExportError("No plugin.")

    def lost(plans) -> Comparison:
        raise EngineError("The GPU failed.")

    assert choose_attention(OWN, refused, lost) == (OWN, {"chosen": "native", "plugin": "No plugin."})
    assert choose_attention(OWN, lambda: FUSED, lost) == (OWN, {"chosen": "native", "plugin": "The GPU failed."})


def test_a_graph_with_plugins_has_two_attentions_less_for_each() -> None:
    assert dataclasses.replace(CLAIM, attention=8, hybrid=0) == CLAIM.with_plugins()


class TwoPlans(FakeTensorRt):
    """Plans whose one output is what `bodies` make of the input."""

    def __init__(self, driver: FakeCudaDriver, bodies: dict[bytes, float]) -> None:
        super().__init__(driver, [("x", True, "HALF", (4, 8)), ("y", False, "FLOAT", (4, 8))], None)
        self.bodies, self.seen = bodies, []

    def _deserialize(self, data: bytes):
        engine = super()._deserialize(data)
        create = engine.create_execution_context
        engine.create_execution_context = lambda: self._tell(create(), data)
        return engine

    def _tell(self, context, data: bytes):
        run = context.execute_async_v3

        def execute(stream) -> bool:
            self.body = lambda arrays: arrays["y"].__setitem__(..., self.bodies[data] * arrays["x"])
            self.seen.append(data)
            return run(stream)

        context.execute_async_v3 = execute
        return context


def test_plans_take_turns_on_the_same_inputs_and_their_outputs_are_compared() -> None:
    driver = FakeCudaDriver()
    module = TwoPlans(driver, {b"one": 1.0, b"other": 1.1})
    found = compare_plans(module, SimpleNamespace(), {"native": b"one", "plugin": b"other"}, Cuda(driver))
    assert found.difference == pytest.approx(0.1, rel=0.01)
    assert found.milliseconds.keys() == {"native", "plugin"}
    assert module.seen == [b"one", b"other"] * (len(module.seen) // 2)
    module.bodies[b"other"] = np.nan
    assert not compare_plans(module, None, {"native": b"one", "plugin": b"other"}, Cuda(driver)).difference <= 1


def capability(spec, choice: EngineChoice, claim: Claim = CLAIM) -> str:
    manifest = SimpleNamespace(spec=spec, graphs={"dit": GraphInfo("dit.onnx", (), ())})
    return plan_job(Path(), manifest, "dit", claim, choice).plugin_capability


def test_the_fused_attention_is_tried_where_tensorrt_takes_plugins_and_the_kernel_fits() -> None:
    native = EngineChoice(TENSORRT, (), ("8.9",), "native")
    assert capability(RAP_SMALL, native) == capability(RAP_1_3B, native) == "8.9"
    assert capability(RAP_SMALL, dataclasses.replace(native, capabilities=("8.0+",), profile="ampere-plus")) == "8.0"
    assert capability(RAP_SMALL, dataclasses.replace(native, profile="version-compatible")) == ""
    assert capability(RAP_SMALL, EngineChoice(RTX, ("8.9",), ("8.9",), "ahead-of-time")) == ""
    assert capability(RAP_SMALL, native, CLAIM.with_plugins()) == ""
    assert capability(dataclasses.replace(RAP_SMALL, hidden_dim=384), native) == ""


def test_a_tensorrt_without_plugins_keeps_its_own_attention_and_says_why(tmp_path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the TensorRT-RTX wheel is not installed")
    result = build_plan(dataclasses.replace(job(hybrid(tmp_path)), plugin_capability="8.6"), lambda part: None)
    assert result.evidence["attention"] == {"expected": 2, "fused": 2}
    told = result.evidence["hybrid_attention"]
    assert told["chosen"] == "native"
    assert "tensorrt_rtx 1.7.1.116 takes no ahead-of-time plugins" in told["plugin"]


def test_a_graph_in_memory_finds_its_weights_beside_the_file(tmp_path) -> None:
    module = pytest.importorskip("tensorrt_rtx", reason="the TensorRT-RTX wheel is not installed")
    what = job(hybrid(tmp_path))
    built = build_network(what, module, what.claim, Path(what.onnx).read_bytes(), lambda part: None, lambda: False)
    assert len(built.attentions) == 2


def test_a_missing_compiler_is_a_sentence(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    with pytest.raises(EngineError, match="nvidia-cuda-nvrtc"):
        register_hybrid_attention(SimpleNamespace(__name__="tensorrt"), "8.1")
