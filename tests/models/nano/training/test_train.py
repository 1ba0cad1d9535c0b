"""Training of the motion-latent nano: every stage makes steps, goes on after a kill, and the end of it talks."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rap_edge.models.causal.audio_encoder import CausalAudioConfig, CausalAudioEncoder
from rap_edge.models.causal.dit import CausalDiT, CausalDiTConfig
from rap_edge.models.causal.motion_decoder import MotionDecoder, MotionDecoderConfig
from rap_edge.models.nano.data import banks, pairs
from rap_edge.models.nano.data.speech import Phoneme, Utterance
from rap_edge.models.nano.data.voices import utterance
from rap_edge.models.nano.training import train_audio, train_codes, train_decoder, train_dit
from rap_edge.models.nano.training.optim import Muon
from rap_edge.models.nano.training.state import Average, Schedule, load_average, load_state, save_state
from rap_edge.models.nano.training.stream import LOOK_AHEAD, Stream, talk

PICTURES = MotionDecoderConfig(latent_channels=6, widths=(8, 8, 12), deep_width=16, code_width=8, state_width=12)
EARS = CausalAudioConfig(bands=16, stem=(12, 12), width=16, dilations=(1, 2))
MIND = CausalDiTConfig(
    channels=6, dim=24, ffn_dim=32, freq_dim=16, num_heads=2, num_layers=2, past=5, audio_width=16, audio_tokens=2,
    audio_hidden=16,
)  # fmt: skip


def speak(rng: np.random.Generator, split: str) -> Utterance:
    sound = np.sin(np.arange(24000) * rng.uniform(0.05, 0.3)).astype(np.float32) * 0.1
    return utterance(sound, 16000, (Phoneme("a", 0.1, 0.6), Phoneme("m", 0.6, 0.8), Phoneme("o", 0.8, 1.4)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    sets = (("train", "train", 2, "whole"), ("still", "train", 2, "still"), ("heldout", "held-out", 3, "whole"))
    for name, split, clips, moving in sets:
        target = folder / name
        target.mkdir()
        for array, (dtype, shape) in pairs.arrays(clips).items():
            np.lib.format.open_memmap(target / f"{array}.npy", "w+", dtype, shape).flush()
        for index in range(clips):
            pairs.write_clip((target, 7, split, index, moving))
        (target / "dataset.json").write_text(json.dumps({"seed": 7, "split": split}))
    banks.build(folder / "speech" / "some", speak, 3, 1, "train")
    banks.build(folder / "speech" / "heldout-some", speak, 2, 2, "held-out")
    return folder


def test_a_clip_is_the_same_whoever_draws_it(data: Path) -> None:
    first, second = (pairs.make_clip(7, "train", 1) for _ in range(2))
    assert first.identity == second.identity
    assert np.array_equal(first.motion, second.motion)
    clips = train_decoder.Clips.open(data / "train")
    assert np.array_equal(clips.motion[1], first.motion)
    assert clips.portrait[0].std() > 5
    x0, y0, x1, y1 = clips.mouth_box[0, 0]
    assert 0 <= x0 < x1 <= 256
    assert 0 <= y0 < y1 <= 256


def test_every_stage_steps_and_the_whole_talks(data: Path, tmp_path: Path) -> None:
    train_decoder.train(data, tmp_path, 2, PICTURES, batch=2, compiled=False)
    train_decoder.train(data, tmp_path, 3, PICTURES, batch=2, compiled=False)
    train_audio.train(data, tmp_path, 2, EARS, batch=2)
    found = train_decoder.Trainee(PICTURES)
    assert load_average(tmp_path / "decoder", found)
    trainee = train_audio.AudioTrainee(EARS)
    assert load_average(tmp_path / "audio", trainee)
    train_codes.train(data, tmp_path, 2, found.model, batch=2)
    moving = train_codes.CodesTrainee(found.model)
    assert load_average(tmp_path / "codes", moving)
    found.model.code_decoder = moving.codes
    train_dit.train(data, tmp_path, 2, MIND, trainee, found.reader, found.model.motion_encoder, batch=2)
    log = (tmp_path / "log.jsonl").read_text()
    assert '"held_out"' in log
    assert train_dit.known_statistics(tmp_path) is not None
    assert (tmp_path / "decoder.png").exists()
    dit = CausalDiT(MIND).eval()
    portrait = np.asarray(train_decoder.Clips.open(data / "heldout").portrait[0])
    frames = talk(found.model.eval(), dit, trainee.encoder.eval(), portrait, np.zeros(640 * 9, np.float32), 0)
    assert frames.shape == (9, 256, 256, 3)


def test_a_decoder_that_goes_on_beside_the_dit_leaves_latents_as_they_are(data: Path, tmp_path: Path) -> None:
    def latents() -> tuple[torch.Tensor, torch.Tensor]:
        found = train_decoder.Trainee(PICTURES)
        assert load_average(tmp_path / "decoder", found)
        motion = torch.linspace(0, 1, 8 * 13).view(1, 8, 13)
        return found.model.motion_encoder(motion).detach(), found.model.frame_decoder.flow.weight.detach()

    train_decoder.train(data, tmp_path, 2, PICTURES, batch=2, compiled=False)
    raw, drawn = latents()
    train_dit.keep_statistics(tmp_path, torch.zeros(6), torch.ones(6))
    train_decoder.train(data, tmp_path, 4, PICTURES, batch=2, compiled=False)
    later, redrawn = latents()
    torch.testing.assert_close(later, raw)
    assert not torch.equal(redrawn, drawn)


def test_codes_are_taught_a_head_that_does_not_step_at_the_joints_of_latents() -> None:
    torch.manual_seed(0)
    model = MotionDecoder(PICTURES)
    trainee = train_codes.CodesTrainee(model)
    slow = torch.linspace(-1, 1, 240).view(1, -1, 1) * torch.rand(32, 1, 13)
    trainee.fit(slow)
    wanted = trainee.wanted(slow, trainee.raw(slow))
    yaw = wanted[..., train_codes.MOTION_COLUMNS.index("yaw")]
    change = (yaw[:, 1:] - yaw[:, :-1]).abs()
    joints = change[:, 3::4].mean()
    assert float(joints) == pytest.approx(float(change.mean()), rel=0.05)
    blink = train_codes.MOTION_COLUMNS.index("blink")
    torch.testing.assert_close(wanted[..., blink], train_codes.GAIN["blink"] * slow[:, 4:, blink])


def test_the_mouth_that_the_dit_learns_is_the_one_that_can_be_heard() -> None:
    torch.manual_seed(0)
    model = train_audio.AudioTrainee(EARS)
    torch.nn.init.normal_(model.reader.weight)
    sound = torch.randn(1, 640 * 40) * 0.1
    with torch.no_grad():
        told = train_audio.told_mouth(model, train_audio.features_of(model.encoder, sound))
        straight = model(sound)[..., :5].clamp(0, 1)
    assert told.shape == (1, 40, 5)
    # What was heard long ago is forgotten: the state before the sound no longer counts.
    torch.testing.assert_close(told[:, 32:37], straight[:, 32:37], atol=1e-3, rtol=0)


def networks() -> tuple[MotionDecoder, CausalDiT, CausalAudioEncoder]:
    torch.manual_seed(0)
    small = dataclasses.replace(PICTURES, image_size=64)
    return MotionDecoder(small).eval(), CausalDiT(MIND).eval(), CausalAudioEncoder(EARS).eval()


def noise(seed: int) -> Callable[[int], torch.Tensor]:
    return lambda latent: torch.randn(
        1, MIND.channels, 1, 1, 1, generator=torch.Generator().manual_seed(99 * seed + latent)
    )


def test_frames_do_not_depend_on_how_the_sound_came() -> None:
    portrait = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    sound = np.random.default_rng(1).normal(0, 0.1, 640 * 23).astype(np.float32)
    whole = Stream(*networks(), portrait, noise(3)).push(sound)
    stream = Stream(*networks(), portrait, noise(3))
    parts = np.split(sound, np.cumsum([640 * frames for frames in (1, 2, 5, 1)]))
    shown = [stream.push(part) for part in parts]
    assert len(whole) == (23 - LOOK_AHEAD) // 4 * 4
    assert np.abs(np.concatenate(shown).astype(int) - whole).max() <= 1
    other = Stream(*networks(), portrait, noise(4)).push(sound)
    assert not np.array_equal(other, whole)


def test_a_state_is_taken_back_as_it_was(tmp_path: Path) -> None:
    def trainee() -> tuple[torch.nn.Module, Average, Muon]:
        torch.manual_seed(0)
        model = torch.nn.Linear(16, 16)
        return model, Average(model), Muon(model)

    def step(model: torch.nn.Module, average: Average, optimiser: Muon) -> None:
        model(torch.ones(1, 16)).square().sum().backward()
        optimiser.step(1.0)
        average.take(model, optimiser.step_count)

    straight, cut = trainee(), trainee()
    for _ in range(3):
        step(*straight)
    step(*cut)
    save_state(tmp_path, *cut)
    (tmp_path / "state.tmp").write_bytes(b"cut off while writing")
    later = trainee()
    assert load_state(tmp_path, *later) == 1
    for _ in range(2):
        step(*later)
    torch.testing.assert_close(later[0].weight, straight[0].weight)
    torch.testing.assert_close(later[1].weights["weight"], straight[1].weights["weight"])
    assert load_state(tmp_path / "none", *trainee()) == 0


def test_the_step_size_rises_stays_and_falls() -> None:
    schedule = Schedule(1000, rise=10, fall=0.4)
    assert schedule.factor(0) == pytest.approx(0.1)
    assert schedule.factor(500) == 1.0
    assert schedule.factor(800) == pytest.approx(0.5)
    assert schedule.factor(1000) == 0.01


def test_what_a_latent_hears_reaches_as_far_after_its_frames_as_before() -> None:
    encoder = CausalAudioEncoder(EARS).eval()
    sound = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 640 * 12)).astype(np.float32))
    heard = train_audio.features_of(encoder, sound)
    whole, _ = encoder(torch.cat((sound, torch.zeros(1, 640 * 3)), 1), encoder.silent_state())
    assert heard.shape == (1, 3, 4 + 2 * LOOK_AHEAD, 16)
    torch.testing.assert_close(heard[0, 1], whole[0, 4 - LOOK_AHEAD : 8 + LOOK_AHEAD])
