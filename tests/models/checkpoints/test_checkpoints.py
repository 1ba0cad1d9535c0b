"""Checkpoints of every layout are read back, and each damaged one gives a sentence that names file and tensor."""

from __future__ import annotations

import os

from helpers.places import DATA

os.environ["HF_HUB_OFFLINE"] = "1"

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from helpers.bundles.diffusers_vae import reference_vae
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2ForCTC

from rap_edge.export.sources.network_source import choose_source
from rap_edge.models import NetworkConfigs, Networks, load_dit, load_networks, random_networks, save_networks
from rap_edge.models.audio_encoder import AudioEncoder, AudioEncoderConfig
from rap_edge.models.checkpoints.published import hugging_face_audio_encoder
from rap_edge.models.checkpoints.tensors import StoredTensor, open_checkpoint
from rap_edge.models.dit import DiT
from rap_edge.models.nano_vae import NanoVAEConfig
from rap_edge.models.networks import dit_config, published_configs
from rap_edge.models.presets import FLASHHEAD_LITE, PRESETS, RAP_1_3B
from rap_edge.models.vaes.ltx import LtxVae
from rap_edge.models.vaes.ltx_config import LtxVaeConfig
from rap_edge.models.vaes.wan import WanVae, WanVaeConfig
from rap_edge.runtime.errors import CheckpointError, OutputError
from rap_edge.runtime.spec import ModelSpec

TINY = dataclasses.replace(
    FLASHHEAD_LITE,
    name="tiny",
    latent_channels=6,
    audio_tokens=2,
    feature_layers=2,
    feature_width=24,
    hidden_dim=24,
    num_heads=2,
    num_layers=2,
    alpha=(1.0, 1.0),
)
TINY_CONFIGS = NetworkConfigs(
    dit=dit_config(TINY, ffn_dim=20, freq_dim=8, audio_hidden=512),
    vae=LtxVaeConfig(
        latent_channels=6,
        block_out_channels=(4, 6, 6, 6),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_block_out_channels=(4, 6, 6, 6),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    ),
    audio_encoder=AudioEncoderConfig(
        conv_dim=(8,) * 7,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    ),
)


TINY_PRO = dataclasses.replace(
    TINY, name="tiny-pro", latent_channels=16, spatial_compression=8, temporal_compression=4, chunk_latents=9
)


def tiny_pro_networks() -> Networks:
    dit = dit_config(TINY_PRO, ffn_dim=20, freq_dim=8, audio_hidden=512, patch_side=2)
    configs = dataclasses.replace(TINY_CONFIGS, dit=dit, vae=WanVaeConfig(base_dim=2))
    return random_networks(TINY_PRO, 7, configs=configs)


def tiny_networks(spec: ModelSpec = TINY, **options: object) -> Networks:
    configs = dataclasses.replace(TINY_CONFIGS, dit=dit_config(spec, ffn_dim=20, freq_dim=8, audio_hidden=512))
    return random_networks(spec, 7, configs=configs, **options)  # type: ignore[arg-type]


def modules(networks: Networks) -> tuple[torch.nn.Module, ...]:
    return networks.dit, networks.vae, networks.audio_encoder  # type: ignore[return-value]


def assert_same_tensors(one: torch.nn.Module, other: torch.nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.fixture
def own(tmp_path) -> Path:
    save_networks(tiny_networks(), tmp_path / "own")
    return tmp_path / "own"


def test_an_audio_encoder_may_lie_in_our_layout_as_transformers_saved_it(own):
    folder = own / "audio_encoder"
    config = json.loads((folder / "config.json").read_text())
    sizes = {key: value for key, value in config.items() if key not in ("norm_eps", "samples_per_frame")}
    shutil.rmtree(folder)
    reference = HubertModel(HubertConfig(**sizes))
    reference.save_pretrained(folder)
    encoder = load_networks(own).audio_encoder
    assert encoder.config.samples_per_frame == TINY.samples_per_frame
    weight = reference.encoder.layers[1].attention.k_proj.weight
    assert torch.equal(encoder.encoder.layers[1].attention.k_proj.weight, weight)


def test_a_vae_may_lie_in_our_layout_as_diffusers_saved_it(own):
    shutil.rmtree(own / "vae")
    reference = reference_vae(block_out_channels=(4, 6, 6, 6))
    reference.save_pretrained(own / "vae")
    weight = load_networks(own).vae.decoder.conv_in.conv.weight
    assert torch.equal(weight, reference.decoder.conv_in.conv.weight)
    config = json.loads((own / "vae" / "config.json").read_text())
    (own / "vae" / "config.json").write_text(json.dumps(config | {"_class_name": "AutoencoderKLMochi"}))
    with pytest.raises(CheckpointError, match="AutoencoderKLMochi"):
        load_networks(own)


@pytest.fixture
def flashhead(tmp_path) -> Path:
    """The published layout with tiny networks: a sharded DiT, diffusers' VAE, transformers' encoder next to it."""
    root = tmp_path / "SoulX-FlashHead-1_3B"
    dit = root / "Model_Lite"
    dit.mkdir(parents=True)
    config = tiny_networks().dit.config
    keys = ("dim", "in_dim", "out_dim", "ffn_dim", "freq_dim", "num_heads", "num_layers", "eps")
    published = {key: getattr(config, key) for key in keys}
    published |= {"text_dim": 4, "patch_size": [1, 1, 1], "has_image_input": False, "vae_stride": [8, 32, 32]}
    (dit / "config.json").write_text(json.dumps(published))
    tensors = tiny_networks().dit.state_dict()
    tensors |= {"text_embedding.0.weight": torch.zeros(24, 4), "audio_emb.proj.0.weight": torch.zeros(8)}
    shards = (
        "diffusion_pytorch_model-00001-of-00002.safetensors",
        "diffusion_pytorch_model-00002-of-00002.safetensors",
    )
    names = sorted(tensors)
    weight_map = {name: shards[index % 2] for index, name in enumerate(names)}
    for shard in shards:
        save_file({name: tensors[name] for name in names if weight_map[name] == shard}, dit / shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (dit / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    reference_vae(block_out_channels=(4, 6, 6, 6), layers_per_block=(1, 1, 1, 1, 1)).save_pretrained(root / "VAE_LTX")
    encoder = Wav2Vec2Config(vocab_size=5, **dataclasses.asdict(TINY_CONFIGS.audio_encoder))
    Wav2Vec2ForCTC(encoder).save_pretrained(tmp_path / "wav2vec2-base-960h")
    return root


@pytest.fixture
def flashhead_pro(tmp_path) -> Path:
    """The published layout of Pro with tiny networks: patches of 2 x 2 cells, and diffusers' VAE of Wan 2.1."""
    root = tmp_path / "pro"
    dit = root / "Model_Pro"
    dit.mkdir(parents=True)
    config = tiny_pro_networks().dit.config
    keys = ("dim", "in_dim", "out_dim", "ffn_dim", "freq_dim", "num_heads", "num_layers", "eps")
    published = {key: getattr(config, key) for key in keys}
    published |= {"patch_size": [1, 2, 2], "has_image_input": False, "vae_stride": [4, 8, 8]}
    (dit / "config.json").write_text(json.dumps(published))
    save_file(tiny_pro_networks().dit.state_dict(), dit / "diffusion_pytorch_model.safetensors")
    AutoencoderKLWan(base_dim=2).save_pretrained(root / "VAE_Wan")
    encoder = Wav2Vec2Config(vocab_size=5, **dataclasses.asdict(TINY_CONFIGS.audio_encoder))
    Wav2Vec2ForCTC(encoder).save_pretrained(root / "wav2vec2-base-960h")
    return root


def test_flashhead_pro_is_read_with_its_patches_and_wans_vae(flashhead_pro):
    networks = load_networks(flashhead_pro, spec=TINY_PRO)
    assert_same_tensors(networks.dit, tiny_pro_networks().dit)
    assert networks.dit.patch_embedding.weight.shape == (24, 32, 1, 2, 2)
    assert isinstance(networks.vae, WanVae)
    # Alone in its folder, it is meant without being named.
    with pytest.raises(CheckpointError, match="num_layers 2 and spec 'flashhead-pro' needs 30"):
        load_networks(flashhead_pro)
    save_networks(networks, flashhead_pro / "own")
    for one, other in zip(modules(networks), modules(load_networks(flashhead_pro / "own")), strict=True):
        assert_same_tensors(one, other)


def test_the_published_pickle_of_wans_vae_is_refused_with_the_command_that_converts_it(flashhead_pro):
    shutil.rmtree(flashhead_pro / "VAE_Wan")
    (flashhead_pro / "VAE_Wan").mkdir()
    (flashhead_pro / "VAE_Wan" / "Wan2.1_VAE.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=r"Wan2\.1_VAE\.pth is a \.pth file.* convert it first with: python -c"):
        load_networks(flashhead_pro, TINY_PRO)


def test_saved_networks_are_read_back_unchanged(own):
    saved, read = tiny_networks(), load_networks(own)
    assert read.spec == saved.spec
    assert read.dit.config == saved.dit.config
    for one, other in zip(modules(saved), modules(read), strict=True):
        assert_same_tensors(one, other)
        assert not other.training


def test_separate_branches_and_alpha_survive_saving(tmp_path):
    spec = dataclasses.replace(TINY, audio_branches="separate", alpha=(0.25, 1.0))
    save_networks(tiny_networks(spec), tmp_path)
    assert load_networks(tmp_path).dit.config.alpha == (0.25, 1.0)
    assert_same_tensors(load_dit(tmp_path), tiny_networks(spec).dit)


def test_a_checkpoint_with_the_nano_vae_keeps_its_latent_statistics(tmp_path):
    vae = NanoVAEConfig(
        latent_channels=6,
        encoder_widths=(4, 4, 4),
        squeeze_width=4,
        latent_width=8,
        phase_width=4,
        decoder_widths=(4, 4, 4, 4),
        latents_mean=(0.5,) * 6,
        latents_std=(2.0,) * 6,
    )
    saved = random_networks(TINY, 1, configs=dataclasses.replace(TINY_CONFIGS, vae=vae))
    save_networks(saved, tmp_path)
    frames = 2 * torch.rand(1, 3, 9, 32, 32) - 1
    assert torch.equal(load_networks(tmp_path).vae.encode(frames), saved.vae.encode(frames))
    assert load_networks(tmp_path, dtype=torch.float16).vae.encode(frames.half()).dtype == torch.float16


def test_flashhead_layout_is_read_with_its_shards_and_unused_tensors_left_out(flashhead):
    networks = load_networks(flashhead, spec=TINY)
    assert networks.spec == TINY
    assert_same_tensors(networks.dit, tiny_networks().dit)
    assert isinstance(networks.vae, LtxVae)
    assert_same_tensors(load_dit(flashhead, TINY), networks.dit)
    assert_same_tensors(load_dit(flashhead / "Model_Lite", TINY), networks.dit)


def test_the_dit_of_an_own_checkpoint_is_found_from_either_folder(own):
    assert_same_tensors(load_dit(own), tiny_networks().dit)
    assert_same_tensors(load_dit(own / "dit"), tiny_networks().dit)


@pytest.mark.parametrize("names", [("weight_g", "weight_v"), ("original0", "original1")])
def test_weight_norm_is_folded_whichever_way_it_was_saved(flashhead, names):
    folder = flashhead.parent / "wav2vec2-base-960h"
    expected = hugging_face_audio_encoder(folder)
    prefix = "wav2vec2.encoder.pos_conv_embed.conv."
    tensors = load_file(folder / "model.safetensors")
    for old, name in zip(("original0", "original1"), names, strict=True):
        stored = prefix + (f"parametrizations.weight.{name}" if name.startswith("o") else name)
        tensors[stored] = tensors.pop(f"{prefix}parametrizations.weight.{old}")
    save_file(tensors, folder / "model.safetensors")
    assert_same_tensors(hugging_face_audio_encoder(folder), expected)


def test_weights_are_read_in_the_dtype_asked_for(own, flashhead):
    for networks in (load_networks(own, dtype=torch.float16), load_networks(flashhead, TINY, torch.float16)):
        dtypes = {tensor.dtype for module in modules(networks) for tensor in module.state_dict().values()}
        assert dtypes == {torch.float16}


def edit_config(file: Path, **changes: object) -> None:
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def cut(file: Path, keep: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data))])


def disguise_pickle(file: Path) -> None:
    file.write_bytes(pickle.dumps({"weights": [1.0] * 100}))


def disguise_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", b"x" * 100)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no_weights": (lambda own: (own / "vae/model.safetensors").unlink(), r"vae/model.safetensors is missing"),
    "only_a_bin": (
        lambda own: (own / "dit/model.safetensors").rename(own / "dit/pytorch_model.bin"),
        r"pytorch_model.bin is a .bin file, which can run code .* convert it to safetensors first",
    ),
    "pickle_in_disguise": (
        lambda own: disguise_pickle(own / "dit/model.safetensors"),
        r"dit/model.safetensors is a pickle or an archive.* despite its name",
    ),
    "zip_in_disguise": (
        lambda own: disguise_zip(own / "dit/model.safetensors"),
        r"dit/model.safetensors is a pickle or an archive",
    ),
    "truncated_data": (
        lambda own: cut(own / "dit/model.safetensors", 0.9),
        r"dit/model.safetensors is truncated or not a safetensors file; download it again",
    ),
    "truncated_header": (lambda own: cut(own / "dit/model.safetensors", 0.01), r"is truncated or not"),
    "empty": (lambda own: cut(own / "dit/model.safetensors", 0), r"is truncated or not"),
    "missing_tensor": (
        lambda own: edit_tensors(own / "dit/model.safetensors", lambda t: t.pop("head.head.bias")),
        r"dit/model.safetensors lacks the tensor 'head.head.bias';",
    ),
    "missing_tensors": (
        lambda own: edit_tensors(own / "dit/model.safetensors", dict.clear),
        r"lacks the tensor 'patch_embedding.weight' \(and \d+ more\)",
    ),
    "unexpected_tensor": (
        lambda own: edit_tensors(own / "dit/model.safetensors", lambda t: t.update(lora=torch.zeros(1))),
        r"dit/model.safetensors has the tensor 'lora' that the network does not know",
    ),
    "misshapen_tensor": (
        lambda own: edit_tensors(own / "vae/model.safetensors", lambda t: t.update(latents_std=torch.ones(5))),
        r"vae/model.safetensors has the tensor 'latents_std' of shape \[5\] where the network needs \[6\]",
    ),
    "integer_tensor": (
        lambda own: edit_tensors(
            own / "vae/model.safetensors", lambda t: t.update(latents_std=torch.ones(6, dtype=torch.int8))
        ),
        r"tensor 'latents_std' dtype must be one of",
    ),
    "config_missing": (lambda own: (own / "dit/config.json").unlink(), r"dit/config.json is missing"),
    "config_not_json": (lambda own: (own / "dit/config.json").write_text("{"), r"dit/config.json is not valid JSON"),
    "config_not_object": (lambda own: (own / "dit/config.json").write_text("[]"), r"must hold a JSON object"),
    "config_unknown_key": (lambda own: edit_config(own / "dit/config.json", depth=3), r"the key 'depth' is unknown"),
    "config_missing_key": (lambda own: edit_config(own / "dit/config.json", dim=None), r"the key 'dim' is missing"),
    "config_wrong_type": (
        lambda own: edit_config(own / "dit/config.json", dim="24"),
        r"dit/config.json cannot be read: dim must be a whole number from 2 to 32768, not '24'",
    ),
    "config_wrong_choice": (
        lambda own: edit_config(own / "dit/config.json", audio_branches="both"),
        r"audio_branches must be one of shared, separate, not 'both'",
    ),
    "unknown_vae": (
        lambda own: edit_config(own / "vae/config.json", architecture="vqgan"),
        r"architecture 'vqgan' and must say 'ltx', 'wan' or 'nano'",
    ),
    "illegal_spec": (
        lambda own: edit_config(own / "spec.json", fps=0),
        r"spec.json is not a legal spec: .*fps must",
    ),
    "no_heads": (lambda own: edit_config(own / "dit/config.json", num_heads=0), r"num_heads must be a whole number"),
    "endless_heads": (lambda own: edit_config(own / "dit/config.json", num_heads=10**20), r"num_heads .* not 10{20}"),
    "other_spec": (
        lambda own: edit_config(own / "spec.json", audio_tokens=3),
        r"DiT's audio_tokens is 2 and spec 'tiny' needs 3",
    ),
    "not_a_checkpoint": (lambda own: shutil.rmtree(own / "dit"), r"is no known checkpoint"),
    "not_there": (shutil.rmtree, r"own is not a folder"),
}


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_own_checkpoint_is_refused_with_a_sentence(own, damage, sentence):
    damage(own)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        load_networks(own)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


INDEX = "Model_Lite/diffusion_pytorch_model.safetensors.index.json"
SHARD = "Model_Lite/diffusion_pytorch_model-00002-of-00002.safetensors"


def point_elsewhere(root: Path, shard: str) -> None:
    index = json.loads((root / INDEX).read_text())
    index["weight_map"]["head.head.bias"] = shard
    (root / INDEX).write_text(json.dumps(index))


FLASHHEAD_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing_shard": (lambda root: (root / SHARD).unlink(), r"00002-of-00002.safetensors is missing"),
    "truncated_shard": (lambda root: cut(root / SHARD, 0.5), r"00002-of-00002.safetensors is truncated"),
    "shard_lacks_tensor": (
        lambda root: edit_tensors(root / SHARD, lambda t: t.popitem()),
        r"00002-of-00002.safetensors lacks the tensor .* that diffusion_pytorch_model.safetensors.index.json promises",
    ),
    "shard_outside": (lambda root: point_elsewhere(root, "../../other.safetensors"), r"outside its own folder"),
    "shard_is_a_bin": (lambda root: point_elsewhere(root, "shard.bin"), r"shard.bin is a .bin file"),
    "index_without_map": (lambda root: (root / INDEX).write_text("{}"), r"has no weight_map"),
    "image_relative": (
        lambda root: edit_config(root / "Model_Lite/config.json", has_image_input=True),
        r"has_image_input True and only False is supported",
    ),
    "config_missing_key": (
        lambda root: edit_config(root / "Model_Lite/config.json", ffn_dim=None),
        r"lacks the key 'ffn_dim'",
    ),
    "other_depth": (
        lambda root: edit_config(root / "Model_Lite/config.json", num_layers=3),
        r"num_layers 3 and spec 'tiny' needs 2",
    ),
    "no_vae": (lambda root: shutil.rmtree(root / "VAE_LTX"), r"VAE_LTX/config.json is missing"),
    "no_audio_encoder": (
        lambda root: shutil.rmtree(root.parent / "wav2vec2-base-960h"),
        r"has no wav2vec2-base-960h in it or next to it",
    ),
}


@pytest.mark.parametrize(("damage", "sentence"), FLASHHEAD_DAMAGES.values(), ids=FLASHHEAD_DAMAGES.keys())
def test_a_damaged_flashhead_checkpoint_is_refused_with_a_sentence(flashhead, damage, sentence):
    damage(flashhead)
    with pytest.raises(CheckpointError, match=sentence):
        load_networks(flashhead, spec=TINY)


def test_a_pickle_file_is_refused_by_its_name_without_being_read(tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model.pt is a .pt file, which can run code"):
        load_networks(file)


def test_random_networks_depend_on_the_seed_alone():
    one, other = tiny_networks(), tiny_networks()
    torch.rand(3)
    for ours, theirs in zip(modules(one), modules(other), strict=True):
        assert_same_tensors(ours, theirs)
    third = random_networks(TINY, 8, configs=TINY_CONFIGS)
    assert not torch.equal(third.dit.head.head.weight, one.dit.head.head.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_random_networks_compute_sane_numbers(dtype):
    networks = tiny_networks(dtype=dtype)
    frames = (2 * torch.rand(1, 3, 33, 64, 64) - 1).to(dtype)
    latents = networks.vae.encode(frames)
    features = networks.audio_encoder((0.1 * torch.randn(1, 33 * 640)).to(dtype))
    windows = torch.stack([features.roll(-offset, 0) for offset in range(-2, 3)], dim=1)[None]
    velocity = networks.dit(torch.randn_like(latents), torch.tensor([700.0]), windows, latents)
    decoded = networks.vae.decode(latents)
    assert decoded.shape == frames.shape
    for tensor in (latents, features, velocity, decoded):
        assert tensor.dtype == dtype
        assert tensor.isfinite().all()
        assert 0.01 < tensor.float().std() < 10


def test_published_sizes_are_those_of_the_published_checkpoints():
    case = json.loads((DATA / "flashhead_dit.json").read_text())
    for spec in (FLASHHEAD_LITE, RAP_1_3B):
        configs = published_configs(spec)
        with torch.device("meta"):
            networks = (DiT(configs.dit), LtxVae(configs.vae), AudioEncoder(configs.audio_encoder))
        counts = [sum(p.numel() for p in network.parameters()) for network in networks]
        # FlashHead's 1.527 B include the unused embeddings.
        unused = [shape for name, shape in case["shapes"].items() if name.startswith(("text_embedding", "audio_emb"))]
        assert round((counts[0] + sum(torch.Size(shape).numel() for shape in unused)) / 1e6) == 1527
        assert [round(count / 1e6) for count in counts[1:]] == [419, 94]


def test_sizes_that_do_not_agree_with_the_spec_are_refused():
    spec = dataclasses.replace(TINY, feature_layers=3)
    with pytest.raises(CheckpointError, match="audio_layers is 2 and spec 'tiny' needs 3"):
        random_networks(spec, 0, configs=TINY_CONFIGS)


def test_published_sizes_do_not_exist_for_another_compression():
    spec = dataclasses.replace(PRESETS["nano"], temporal_compression=4)
    with pytest.raises(CheckpointError, match="give network configs of your own"):
        published_configs(spec)


def test_saving_where_a_file_stands_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_networks(tiny_networks(), tmp_path / "file")


def test_opening_a_checkpoint_tells_where_every_tensor_lies(own):
    checkpoint = open_checkpoint(own / "dit", "model")
    file = own / "dit/model.safetensors"
    assert checkpoint.stored["head.head.bias"] == StoredTensor(file, "head.head.bias", (6,))
    with safe_open(file, framework="pt") as opened:
        assert set(checkpoint.stored) == set(opened.keys())


def test_importing_the_package_does_not_import_torch():
    code = "import sys, rap_edge.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_checkpoint_whose_path_no_manifest_may_hold_is_refused_before_the_work(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"must have no control characters.*; rename the folder"):
        choose_source(str(tmp_path / "with\x1b[2J"), None, random_weights=False)
