"""Checkpoints of full size that take no space: headers of safetensors files, and holes where the weights would be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from rap_edge.models.checkpoints.expected import Shape, dit_tensors, wav2vec2_tensors
from rap_edge.models.checkpoints.expected_ltx import ltx_tensors
from rap_edge.models.checkpoints.safetensors_header import ALL_DTYPES
from rap_edge.models.presets import FLASHHEAD_LITE

DIT = {"dim": 1536, "in_dim": 256, "out_dim": 128, "ffn_dim": 8960, "freq_dim": 256, "num_heads": 12, "num_layers": 30}


def write_sparse(file: Path, shapes: Mapping[str, Shape], dtype: str = "BF16") -> None:
    """A safetensors file whose weights are a hole in it."""
    entries, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * ALL_DTYPES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    with file.open("wb") as opened:
        opened.write(len(header).to_bytes(8, "little") + header)
        opened.truncate(8 + len(header) + end)


def write_flashhead(root: Path) -> Path:
    """The published folder of FlashHead Lite at its full size; returns it."""
    for folder, config, shapes in (
        ("Model_Lite", DIT, dit_tensors(DIT, FLASHHEAD_LITE, "") | {"text_embedding.0.weight": (4, 4)}),
        ("VAE_LTX", {"_class_name": "AutoencoderKLLTXVideo"}, ltx_tensors({}, "")),
        ("wav2vec2-base-960h", {"model_type": "wav2vec2"}, wav2vec2_tensors({}, "")),
    ):
        (root / folder).mkdir(parents=True)
        (root / folder / "config.json").write_text(json.dumps(config))
        stem = "model" if folder.startswith("wav2vec2") else "diffusion_pytorch_model"
        write_sparse(root / folder / f"{stem}.safetensors", shapes or {})
    return root
