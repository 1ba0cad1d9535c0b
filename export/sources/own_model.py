"""The door for a model of one's own: `export_modules`, and the function that `rap-export --model` calls."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from rap_edge.runtime.bundle.precision import Precision
from rap_edge.runtime.checks.bounds import OneOf, Text, shown
from rap_edge.runtime.errors import ExportError, first_line
from rap_edge.runtime.spec import AudioEncodeMode, ModelSpec

from ..bundle_writer import refuse_to_replace
from ..capture.own_model import OwnModel
from ..exporter import ExportReport, ExportSettings, export_bundle
from ..parity.check_inputs import real_inputs
from ..plans.choice import choose_engines
from ..stages import Stages

_NAME = Text(256)


@dataclass(frozen=True)
class OwnSource:
    """A model of one's own as the source of an export.

    Attributes:
        give: gives the model.
        name: `package.module:function`, or what else tells where it came from.
    """

    give: Callable[[], OwnModel]
    name: str

    def load(self) -> OwnModel:
        """The model, ready to be exported; raises `ExportError` and `SpecError` as `OwnModel.prepared`."""
        return self.give().prepared()

    def provenance(self) -> dict[str, Any]:
        """The manifest's record of this source."""
        return {"weights": "own model", "model": self.name}


def export_modules(
    spec: ModelSpec,
    *,
    dit: nn.Module,
    vae_encoder: nn.Module,
    vae_decoder: nn.Module,
    audio_encoder: nn.Module,
    output: str | os.PathLike[str] | None = None,
    precision: str = "fp32",
    engine: str | None = None,
    target: str | None = None,
    profile: str | None = None,
    compared: bool = True,
    audio_encode_mode: AudioEncodeMode = "stream",
) -> ExportReport:
    """Export PyTorch modules to a bundle: graphs, precision by rules, comparison with PyTorch, plans.

    Args:
        spec: what the modules were trained for.
        dit: `OwnModel` has the call signature of each; they are changed in place, to float32 and eval mode, and with
            `precision="fp16"` their weights are rounded.
        vae_encoder: likewise.
        vae_decoder: likewise.
        audio_encoder: likewise.
        output: the bundle's folder; None takes `build/<spec>-<precision>`.
        precision: "fp32" or "fp16".
        engine: "tensorrt" or "tensorrt-rtx", to build a plan of every graph too.
        target: as of `rap-export --target`.
        profile: as of `rap-export --profile`.
        compared: whether the graphs are compared with PyTorch, without which there is no golden clip.
        audio_encode_mode: "once" makes an audio encoder for sound of any length.

    Returns:
        What was exported, with what became of every graph's attention.

    Raises:
        ExportError: a module does not fulfil its signature, cannot be captured, or its graph differs from PyTorch.
        SpecError: the spec cannot work.
        OutputError: the folder cannot be written.
    """
    if fault := OneOf(("fp32", "fp16")).fault(precision):
        raise ExportError(f"The precision {fault}; pass one of them.")
    folder = None if output is None else Path(output)
    if folder is not None:
        refuse_to_replace(folder)
    choice = None if engine is None else choose_engines(engine, target, profile, Precision(precision))
    model = OwnModel(spec=spec, dit=dit, vae_encoder=vae_encoder, vae_decoder=vae_decoder, audio_encoder=audio_encoder)
    settings = ExportSettings(
        precision=Precision(precision), engines=choice, compared=compared, audio_encode_mode=audio_encode_mode
    )
    return export_bundle(OwnSource(lambda: model, "modules"), folder, settings, real_inputs, Stages())


def own_source(name: str) -> OwnSource:
    """The source that `--model package.module:function` names.

    Raises:
        ExportError: the name is none.
    """
    module, colon, function = name.partition(":")
    words = [*module.split("."), function]
    if not colon or _NAME.fault(name) or not all(word.isidentifier() for word in words):
        raise ExportError(f"--model must be package.module:function, not {shown(name)}; name yours so.")
    return OwnSource(lambda: _call(module, function), name)


def _call(module: str, function: str) -> OwnModel:
    # As `python -m` does: a model's code is beside whoever exports it, and need not be installed.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(import_module(module), function)
        model = found()
    except (ImportError, AttributeError, RuntimeError, TypeError, ValueError, LookupError, OSError) as error:
        raise ExportError(f"{module}:{function} failed{_place(error)} ({_said(error)}); correct it.") from error
    if not isinstance(model, OwnModel):
        raise ExportError(
            f"{module}:{function} gives a {type(model).__name__} and must give a rap_edge.export.OwnModel; return one."
        )
    return model


def _place(error: Exception) -> str:
    """Where somebody's own code was last before the error."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [frame for frame in frames if not {"site-packages", "importlib"} & set(Path(frame.filename).parts)]
    own = [frame for frame in own if not frame.filename.startswith("<")]
    return f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""


def _said(error: Exception) -> str:
    """What the error says; PyTorch puts the tensors that a state dict lacks on the second line."""
    return first_line(RuntimeError(" ".join(str(error).split("\n\t", 2)[:2]) or type(error).__name__))
