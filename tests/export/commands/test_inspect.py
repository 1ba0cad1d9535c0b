"""`rap-export inspect` on checkpoints of full size whose weights are holes in files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.bundles.small_causal import small_causal_networks
from helpers.bundles.sparse_checkpoint import DIT, write_flashhead, write_sparse

from rap_edge.export.cli import main
from rap_edge.export.commands.inspect import inspect, text
from rap_edge.models.checkpoints.causal import save_causal_networks
from rap_edge.models.checkpoints.expected import dit_tensors
from rap_edge.models.checkpoints.expected_wan import wan_tensors
from rap_edge.models.nano import SHIPPED
from rap_edge.models.presets import FLASHHEAD_LITE

STEM = "diffusion_pytorch_model"


@pytest.fixture
def flashhead(tmp_path) -> Path:
    return write_flashhead(tmp_path / "SoulX-FlashHead-1_3B")


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_whole_checkpoint_is_recognised_with_its_sizes_and_without_its_weights(flashhead, capsys) -> None:
    assert main(["inspect", str(flashhead), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["spec"], found["whole"]) == ("flashhead-lite", True)
    dit, vae, audio = found["parts"]
    assert 1.5e9 < dit["parameters"] < 1.6e9
    assert (dit["bytes"]["fp32"], dit["bytes"]["fp16"]) == (4 * dit["parameters"], 2 * dit["parameters"])
    assert dit["parameters"] < dit["bytes"]["int8"] < 1.01 * dit["parameters"]
    assert (vae["kind"], audio["kind"], dit["dtypes"]) == ("vae", "audio_encoder", {"BF16": dit["tensors"] + 1})


def test_it_needs_neither_torch_nor_safetensors(flashhead) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'safetensors', 'onnx', 'onnx_ir', 'onnxscript'): sys.modules[name] = None\n"
        "from rap_edge.export.cli import main\n"
        f"sys.exit(main(['inspect', {str(flashhead)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("nothing is missing\n")


def test_what_is_missing_unexpected_and_misshapen_is_listed_and_shortened(flashhead, capsys) -> None:
    shapes = dit_tensors(DIT, FLASHHEAD_LITE, "")
    half = {name: shape for name, shape in shapes.items() if not name.startswith(("blocks.1", "blocks.2"))}
    write_sparse(flashhead / "Model_Lite" / f"{STEM}.safetensors", half | {"head.head.bias": (64,), "lora.up": (2, 2)})
    assert main(["inspect", str(flashhead)]) == 1
    out = capsys.readouterr().out
    assert "dit: missing (594): blocks.1.modulation, blocks.1.self_attn.q.weight, " in out
    assert " and 590 more\n" in out
    assert "dit: unexpected (1): lora.up\n" in out
    assert "dit: misshapen (1): head.head.bias [64], not [128]\n" in out
    assert out.endswith("not whole\n")


def test_the_tensors_and_sizes_of_a_causal_checkpoint_are_compared(tmp_path, capsys) -> None:
    networks = small_causal_networks()
    save_causal_networks(networks, tmp_path)
    found = inspect(tmp_path)
    assert found.whole
    assert all(part.compared for part in found.parts)
    weights = sum(tensor.numel() for module in networks.modules for tensor in module.parameters())
    assert sum(part.parameters for part in found.parts) == weights
    edit(tmp_path / "dit" / "config.json", past=7, audio_hidden=8)
    edit(tmp_path / "vae" / "config.json", widths=[8, 8, 16])
    assert main(["inspect", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "contradicts spec.json: past is 7, not 3." in out
    assert "dit: misshapen (5): audio_proj.0.weight [16, 160], not [8, 160]" in out
    assert "vae: misshapen" in out
    edit(tmp_path / "vae" / "config.json", widths=[8, 8])
    assert main(["inspect", str(tmp_path)]) == 2
    assert "needs three widths" in capsys.readouterr().err


def test_shards_that_are_not_there_are_named(flashhead) -> None:
    folder = flashhead / "Model_Lite"
    (folder / f"{STEM}.safetensors").rename(folder / "a.safetensors")
    names = list(dit_tensors(DIT, FLASHHEAD_LITE, ""))
    places = dict.fromkeys(names, "a.safetensors") | {"head.head.bias": "b.safetensors"}
    (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (dit, *_) = inspect(flashhead).parts
    assert dit.notes == (
        f"The shard 'b.safetensors' that {STEM}.safetensors.index.json lists is missing; download it.",
    )


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        (
            {"a": "../b.safetensors"},
            "points at '../b.safetensors' outside its own folder; do not trust this checkpoint.",
        ),
        ({"a": 3}, "has no weight_map from tensors to files; download it again."),
        (None, "has no weight_map from tensors to files; download it again."),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(flashhead, capsys, places: object, sentence: str) -> None:
    folder = flashhead / "Model_Lite"
    (folder / f"{STEM}.safetensors").unlink()
    (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert main(["inspect", str(flashhead)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: edit(root / "Model_Lite/config.json", num_layers=28), "num_layers is 28, not 30."),
        (lambda root: (root / "VAE_LTX").rename(root / "VAE"), "There is no folder of the vae."),
        (lambda root: (root / "wav2vec2-base-960h").rename(root / "w"), "There is no folder of the audio_encoder."),
        (
            lambda root: write_sparse(
                root / f"VAE_LTX/{STEM}.safetensors", {"encoder.conv_in.conv.bias": (8,)}, "F8_E4M3"
            ),
            "1 tensors are in F8_E4M3, of which the scales are elsewhere; use an unquantised checkpoint.",
        ),
    ],
)
def test_what_does_not_fit_is_a_sentence(flashhead, change, sentence: str) -> None:
    change(flashhead)
    found = inspect(flashhead)
    assert not found.whole
    assert sentence in text(found)


def test_the_tensors_of_wans_vae_are_compared(tmp_path, capsys) -> None:
    config = {"_class_name": "AutoencoderKLWan", "base_dim": 8}
    shapes = wan_tensors(config, "")
    assert shapes is not None
    (tmp_path / "config.json").write_text(json.dumps(config))
    write_sparse(tmp_path / f"{STEM}.safetensors", shapes)
    (part,) = inspect(tmp_path).parts
    assert part.whole
    assert part.compared
    assert part.parameters == sum(math.prod(shape) for shape in shapes.values())
    lacking = {name: shape for name, shape in shapes.items() if "mid_block" not in name}
    write_sparse(tmp_path / f"{STEM}.safetensors", lacking | {"quant_conv.bias": (3,), "extra": (1,)})
    assert main(["inspect", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"vae: missing ({len(shapes) - len(lacking)}): encoder.mid_block." in out
    assert "vae: unexpected (1): extra\n" in out
    assert "vae: misshapen (1): quant_conv.bias [3], not [32]\n" in out
    edit(tmp_path / "config.json", is_residual=True)
    assert not inspect(tmp_path).parts[0].compared


def test_one_network_alone_is_recognised(flashhead) -> None:
    assert [inspect(flashhead / name).parts[0].kind for name in ("Model_Lite", "VAE_LTX", "wav2vec2-base-960h")] == [
        "dit",
        "vae",
        "audio_encoder",
    ]
    assert inspect(flashhead / "Model_Lite").spec == "flashhead-lite"


def test_the_checkpoint_that_ships_is_recognised(capsys) -> None:
    found = inspect(SHIPPED)
    assert (found.spec, found.whole) == ("nano", True)
    assert "not compared here" not in text(found)


def test_files_of_somebody_else_are_counted_and_lead_to_the_own_door(tmp_path) -> None:
    write_sparse(tmp_path / "mine.safetensors", {"layer.0": (2, 3)})
    found = inspect(tmp_path)
    assert (found.spec, found.whole, found.parts[0].parameters) == (None, False, 6)
    assert "rap-export --model" in text(found)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_bytes(b"PK"), lambda p: None])
def test_no_checkpoint_is_a_sentence(make, tmp_path, capsys) -> None:
    make(tmp_path / "x.safetensors")
    assert main(["inspect", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
