"""`rap-export inspect`: what a checkpoint folder seems to be and whether it is whole, from configs and headers alone.

No weight is read, and PyTorch is not needed.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rap_edge.models.checkpoints.expected import Shape, dit_tensors, wav2vec2_tensors
from rap_edge.models.checkpoints.expected_causal import CAUSAL_TENSORS
from rap_edge.models.checkpoints.expected_ltx import ltx_tensors
from rap_edge.models.checkpoints.expected_wan import wan_tensors
from rap_edge.models.checkpoints.layouts import (
    AUDIO_FOLDER,
    DIT_UNUSED,
    FAMILY,
    HEADS,
    POSITIONAL,
    WEIGHT_NORMS,
    Member,
)
from rap_edge.models.checkpoints.safetensors_header import (
    ALL_DTYPES,
    COUNTER,
    DTYPES,
    TensorEntry,
    read_header,
    read_index,
)
from rap_edge.models.config import read_json_object
from rap_edge.models.presets import FLASHHEAD_LITE, PRESETS
from rap_edge.runtime.checks.bounds import shown
from rap_edge.runtime.cli.table import columns
from rap_edge.runtime.errors import CheckpointError, SpecError
from rap_edge.runtime.spec import ModelSpec

_SHOWN = 4
_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
_KINDS = ("dit", "vae", "audio_encoder")


@dataclass(frozen=True)
class Part:
    """One network's files.

    Attributes:
        kind: "dit", "vae", "audio_encoder" or "unknown".
        folder: where they are.
        dtypes: how many tensors there are of each dtype.
        shapes: of every tensor that the network needs, by its name.
        missing: tensors that the config promises and no file has.
        unexpected: tensors that the network does not know.
        misshapen: tensors of another shape, with both.
        notes: what else is wrong, each a sentence.
        compared: whether it is known which tensors the network needs; else only the export compares them.
    """

    kind: str
    folder: str
    dtypes: Mapping[str, int]
    shapes: Mapping[str, Shape]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    compared: bool = True

    @property
    def whole(self) -> bool:
        """Whether nothing is known to be missing, unexpected, misshapen or otherwise wrong."""
        return not (self.missing or self.unexpected or self.misshapen or self.notes)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(map(math.prod, self.shapes.values()))

    def bytes_in(self, precision: str) -> int:
        """Size in "fp32", "fp16" or "int8", of which products and convolutions alone are in 8 bits."""
        matrices = sum(math.prod(shape) for shape in self.shapes.values() if len(shape) > 1)
        rest = _BYTES["fp32" if precision == "int8" else precision]
        return matrices * _BYTES[precision] + (self.parameters - matrices) * rest


@dataclass(frozen=True)
class Inspection:
    """What a folder seems to be.

    Attributes:
        folder: what was looked at.
        layout: whose layout it has, as a phrase.
        spec: what fits, a preset's name or the folder's own; None if nothing does.
        parts: its networks.
        notes: what else is to be said, each a sentence.
    """

    folder: str
    layout: str
    spec: str | None
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all networks are there and whole."""
        return not self.notes and all(part.whole for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """The inspection as plain JSON types, its lists whole."""
        parts = [
            {
                "kind": part.kind,
                "folder": part.folder,
                "tensors": len(part.shapes),
                "dtypes": dict(part.dtypes),
                "parameters": part.parameters,
                "bytes": {precision: part.bytes_in(precision) for precision in _BYTES},
                "missing": list(part.missing),
                "unexpected": list(part.unexpected),
                "misshapen": list(part.misshapen),
                "notes": list(part.notes),
                "compared": part.compared,
            }
            for part in self.parts
        ]
        own = {"folder": self.folder, "layout": self.layout, "spec": self.spec, "whole": self.whole}
        return own | {"notes": list(self.notes), "parts": parts}


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Look at a checkpoint folder.

    Raises:
        CheckpointError: it is no folder with safetensors files, or a config or header of it is damaged.
    """
    folder = Path(path)
    if not os.path.isdir(folder):
        raise CheckpointError(f"{folder} is not a folder; point at the folder that holds the checkpoint.")
    if os.path.isfile(folder / "spec.json") and os.path.isdir(folder / "dit"):
        return _own(folder)
    for member in FAMILY:
        if os.path.isdir(folder / member.dit_folder):
            return _flashhead(folder, member)
    if any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json")):
        return _single(folder)
    raise CheckpointError(
        f"{folder} holds no checkpoint: neither spec.json with dit, vae and audio_encoder, nor "
        f"{' nor '.join(member.dit_folder for member in FAMILY)}, nor a safetensors file; point at the folder with "
        "them."
    )


def text(found: Inspection) -> str:
    """The inspection for a screen, its lists shortened."""
    lines = [f"{found.folder}: {found.layout}", f"spec that fits: {found.spec or 'none of ' + ', '.join(PRESETS)}"]
    header = ("network", "tensors", "stored as", "weights", *_BYTES)
    rows = [
        (
            part.kind,
            str(len(part.shapes)),
            ", ".join(part.dtypes),
            f"{part.parameters / 1e6:.1f} M",
            *(f"{part.bytes_in(precision) / 1e6:.1f} MB" for precision in _BYTES),
        )
        for part in found.parts
    ]
    total = [sum(part.bytes_in(precision) for part in found.parts) for precision in _BYTES]
    weights = sum(part.parameters for part in found.parts)
    rows.append(("all", "", "", f"{weights / 1e6:.1f} M", *(f"{size / 1e6:.1f} MB" for size in total)))
    lines += columns([header, *rows])
    for part in found.parts:
        for what in ("missing", "unexpected", "misshapen"):
            lines += _shortened(f"{part.kind}: {what}", getattr(part, what))
        lines += [f"{part.kind}: {note}" for note in part.notes]
    lines += found.notes
    unknown = [part.kind for part in found.parts if not part.compared]
    if unknown:
        lines.append(f"not compared here, but when it is exported: the tensors of {', '.join(unknown)}")
    lines.append("nothing is missing" if found.whole else "not whole")
    return "\n".join(lines)


def _shortened(what: str, names: tuple[str, ...]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{what} ({len(names)}): {', '.join(names[:_SHOWN])}{more}"]


def _own(folder: Path) -> Inspection:
    try:
        spec = ModelSpec.from_dict(read_json_object(folder / "spec.json"))
    except SpecError as error:
        raise CheckpointError(f"{folder / 'spec.json'} is not a legal spec: {error}") from None
    parts = []
    for kind in _KINDS:
        home = folder / kind
        if os.path.isdir(home):
            config = read_json_object(home / "config.json")
            parts.append(_part(kind, home, "model", _promised(kind, config, spec, home, ours=True)))
    dit = folder / "dit" / "config.json"
    notes: tuple[str, ...] = ()
    if other := _differences(read_json_object(dit), spec):
        notes = (f"{dit} contradicts spec.json: {', '.join(other)}.",)
    return _inspection(folder, "a checkpoint of rap-edge's own layout", spec.name, parts, notes)


def _flashhead(folder: Path, member: Member) -> Inspection:
    config = read_json_object(folder / member.dit_folder / "config.json")
    spec, notes = _preset(config, str(folder / member.dit_folder / "config.json"))
    homes = {"dit": folder / member.dit_folder, "vae": folder / member.vae_folder}
    audio = (folder / AUDIO_FOLDER, folder.parent / AUDIO_FOLDER)
    homes["audio_encoder"] = next((home for home in audio if os.path.isdir(home)), audio[0])
    parts = [
        _part(
            kind,
            home,
            "model" if kind == "audio_encoder" else "diffusion_pytorch_model",
            _promised(kind, read_json_object(home / "config.json"), spec or member.spec, home),
        )
        for kind, home in homes.items()
        if os.path.isdir(home)
    ]
    return _inspection(folder, "SoulX-FlashHead's published layout", spec.name if spec else None, parts, notes)


def _single(folder: Path) -> Inspection:
    config = read_json_object(folder / "config.json") if os.path.isfile(folder / "config.json") else {}
    stems = sorted({file.name.partition(".safetensors")[0] for file in folder.glob("*.safetensors*")})
    stem = next((stem for stem in ("diffusion_pytorch_model", "model") if stem in stems), stems[0])
    if "has_image_input" in config or "ffn_dim" in config:
        spec, notes = _preset(config, str(folder / "config.json"))
        promised = _promised("dit", config, spec or FLASHHEAD_LITE, folder)
        part = _part("dit", folder, stem, promised)
        return Inspection(
            str(folder), "the DiT of FlashHead's family alone", spec.name if spec else None, (part,), notes
        )
    for kind, layout, fits in (
        ("vae", "a VAE in diffusers' layout alone", "AutoencoderKL" in str(config.get("_class_name"))),
        ("audio_encoder", "a speech encoder of transformers alone", config.get("model_type") in ("wav2vec2", "hubert")),
    ):
        if fits:
            part = _part(kind, folder, stem, _promised(kind, config, FLASHHEAD_LITE, folder))
            return Inspection(str(folder), layout, None, (part,))
    part = _part("unknown", folder, stem, None)
    layout = "safetensors files without a config.json that is known"
    return Inspection(str(folder), layout, None, (part,), ("Modules of your own go through rap-export --model.",))


def _inspection(
    folder: Path, layout: str, spec: str | None, parts: list[Part], notes: tuple[str, ...] = ()
) -> Inspection:
    there = {part.kind for part in parts}
    lacking = tuple(f"There is no folder of the {kind}." for kind in _KINDS if kind not in there)
    return Inspection(str(folder), layout, spec, tuple(parts), notes + lacking)


def _preset(config: Mapping[str, Any], source: str) -> tuple[ModelSpec | None, tuple[str, ...]]:
    """The preset whose sizes a DiT's config has, and else in what the nearest differs."""
    nearest: tuple[str, list[str]] | None = None
    for spec in PRESETS.values():
        other = _differences(config, spec)
        # RAP's sizes are FlashHead's, whose preset comes first; its weights are not public.
        if not other:
            return spec, ()
        if nearest is None or len(other) < len(nearest[1]):
            nearest = spec.name, other
    assert nearest is not None
    return None, (f"{source} contradicts spec {nearest[0]!r}, the nearest: {', '.join(nearest[1])}.",)


def _differences(config: Mapping[str, Any], spec: ModelSpec) -> list[str]:
    """In what a DiT's config and a spec differ, each a clause."""
    sizes = {"dim": spec.hidden_dim, "num_heads": spec.num_heads, "num_layers": spec.num_layers}
    if spec.caches is None:
        sizes |= {"in_dim": 2 * spec.latent_channels, "out_dim": spec.latent_channels}
    else:
        sizes |= {"channels": spec.latent_channels, "past": spec.caches.past_latents}
        sizes |= {"audio_width": spec.feature_width, "audio_tokens": spec.audio_tokens}
    return [f"{key} is {shown(config.get(key))}, not {size}" for key, size in sizes.items() if config.get(key) != size]


def _promised(
    kind: str, config: Mapping[str, Any], spec: ModelSpec, folder: Path, *, ours: bool = False
) -> dict[str, Shape] | None:
    source = str(folder / "config.json")
    if ours and spec.caches is not None:
        return CAUSAL_TENSORS[kind](config, source)
    # Ours say an architecture; those of diffusers, which may lie in the same place, a class.
    architecture = config.get("architecture", config.get("_class_name", "ltx"))
    if kind == "vae" and architecture in ("wan", "AutoencoderKLWan"):
        return wan_tensors(config, source)
    if kind == "vae" and architecture not in ("ltx", "AutoencoderKLLTXVideo"):
        return None
    readers: dict[str, Callable[[], dict[str, Shape] | None]] = {
        "dit": lambda: dit_tensors(config, spec, source),
        "vae": lambda: ltx_tensors(config, source),
        "audio_encoder": lambda: wav2vec2_tensors(config, source),
    }
    return readers[kind]()


def _part(kind: str, folder: Path, stem: str, promised: Mapping[str, Shape] | None) -> Part:
    """Compare what is stored with what is promised; None if that is not known."""
    entries, notes = _stored(folder, stem)
    strange = sorted({entry.dtype for entry in entries.values()} - DTYPES.keys())
    used = _as_the_network_names(kind, entries)
    if bad := [name for name, entry in used.items() if entry.dtype in strange and entry.dtype.startswith("F8")]:
        notes.append(
            f"{len(bad)} tensors are in {used[bad[0]].dtype}, of which the scales are elsewhere; use an unquantised "
            "checkpoint."
        )
    shapes = {name: entry.shape for name, entry in used.items()}
    dtypes = dict(Counter(entry.dtype for entry in entries.values()).most_common())
    if promised is None:
        return Part(kind, str(folder), dtypes, shapes, notes=tuple(notes), compared=False)
    return Part(
        kind,
        str(folder),
        dtypes,
        shapes,
        missing=tuple(name for name in promised if name not in shapes),
        unexpected=tuple(name for name in shapes if name not in promised),
        misshapen=tuple(
            f"{name} {list(shapes[name])}, not {list(shape)}"
            for name, shape in promised.items()
            if name in shapes and shapes[name] != shape
        ),
        notes=tuple(notes),
    )


def _stored(folder: Path, stem: str) -> tuple[dict[str, TensorEntry], list[str]]:
    """Every tensor of a file, or of the shards that an index lists, and what is wrong with these."""
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if os.path.isfile(single) or not os.path.isfile(index):
        return dict(read_header(single, ALL_DTYPES)), []
    found: dict[str, TensorEntry] = {}
    notes = []
    for shard in sorted(set(read_index(index).values())):
        if os.path.isfile(folder / shard):
            found |= read_header(folder / shard, ALL_DTYPES)
        else:
            notes.append(f"The shard {shown(shard)} that {index.name} lists is missing; download it.")
    return found, notes


def _as_the_network_names(kind: str, entries: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """The tensors that are used, by the names that the network has for them."""
    if kind == "dit":
        return {name: entry for name, entry in entries.items() if not name.startswith(DIT_UNUSED)}
    if kind != "audio_encoder":
        return dict(entries)
    found = {name.removeprefix("wav2vec2.").removeprefix("hubert."): entry for name, entry in entries.items()}
    found = {name: entry for name, entry in found.items() if not name.startswith(HEADS) and entry.dtype != COUNTER}
    for length, direction in WEIGHT_NORMS:
        if POSITIONAL + length in found and POSITIONAL + direction in found:
            del found[POSITIONAL + length]
            found[f"{POSITIONAL}weight"] = found.pop(POSITIONAL + direction)
    return found
