from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rap_edge.calibration.choose.observer import choose_observer
from rap_edge.calibration.observe.layers import Layer
from rap_edge.calibration.observe.ranges import Activation, Extent
from rap_edge.calibration.quantize.variants import GraphPlan
from rap_edge.calibration.targets import CPU
from rap_edge.runtime.bundle.manifest import GraphInfo


class Extents:
    """In place of engines, what their 8-bit numbers would span."""

    target = CPU

    def engine(self, graph: str, chosen: set[str], extents: Mapping[str, Extent]) -> Any:
        return extents


class RollOut:
    """In place of frames, what is lost of the one moment when the activation is large."""

    def of(self, graph: str, engine: Any) -> float:
        return float((100.0 - engine["x"].high) ** 2)


def test_an_observer_that_cuts_a_rare_moment_off_loses_to_one_that_does_not(tmp_path: Path) -> None:
    activation = Activation()
    activation.add(np.random.default_rng(0).standard_normal(60_000).astype(np.float32), None, None)
    activation.add(np.array([100.0], np.float32), None, None)
    layer = Layer("vae_decoder", "conv", "Conv", "x", "y", "w", 0, 1, 4, 4)
    plan = GraphPlan("vae_decoder", GraphInfo("x.onnx", (), ()), tmp_path, (layer,), {"x": activation, "y": activation})
    found = choose_observer(plan, Extents(), RollOut())  # type: ignore[arg-type]  # they stand in
    assert max(found, key=lambda name: found[name]) == "min-max"
    assert found["percentile"] < found["min-max"]
