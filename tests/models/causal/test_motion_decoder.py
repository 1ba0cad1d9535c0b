"""The motion decoder: what a split into calls must not change, and what the portrait carries."""

import dataclasses

import pytest
import torch
from torch import Tensor

from rap_edge.models.causal.motion_decoder import MotionDecoder, MotionDecoderConfig, bend
from rap_edge.runtime.errors import CheckpointError

SMALL = MotionDecoderConfig(
    latent_channels=6, image_size=64, widths=(8, 8, 12), deep_width=16, code_width=8, state_width=12
)


def network() -> MotionDecoder:
    torch.manual_seed(0)
    return MotionDecoder(SMALL).eval()


def picture(seed: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def latents(count: int) -> Tensor:
    return torch.randn(1, 6, count, 1, 1, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("split", [(1, 4), (2, 2, 1), (1, 1, 1, 1, 1)])
def test_frames_do_not_depend_on_how_the_latents_were_split(split: tuple[int, ...]) -> None:
    model = network()
    reference = model.reference(picture(1))
    state = model.first_state()
    whole, last = model.decode(latents(5), state, reference)
    parts, given = [], state
    for part in latents(5).split(split, dim=2):
        frames, given = model.decode(part, given, reference)
        parts.append(frames)
    torch.testing.assert_close(torch.cat(parts, 2), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(given, last)


@torch.no_grad()
def test_a_frame_does_not_see_later_latents() -> None:
    model = network()
    reference = model.reference(picture(1))
    state = model.first_state()
    first, _ = model.decode(latents(3), state, reference)
    other = latents(3)
    other[:, :, 2] += 1.0
    second, _ = model.decode(other, state, reference)
    torch.testing.assert_close(first[:, :, :8], second[:, :, :8], atol=1e-5, rtol=1e-5)
    assert (first[:, :, 8:] - second[:, :, 8:]).abs().max() > 1e-3


@torch.no_grad()
def test_a_group_is_encoded_without_its_neighbours_and_normalised() -> None:
    model = network()
    reference = model.reference(picture(1))
    motion = torch.randn(1, 8, 13, generator=torch.Generator().manual_seed(2))
    whole = model.encode(motion)
    assert whole.shape == (1, 6, 2, 1, 1)
    torch.testing.assert_close(model.encode(motion[:, 4:]), whole[:, :, 1:])
    torch.testing.assert_close(model.static(), model.encode(torch.zeros(1, 4, 13)))
    config = dataclasses.replace(SMALL, latents_mean=(0.5,) * 6, latents_std=(2.0,) * 6)
    measured = MotionDecoder(config)
    measured.load_state_dict(model.state_dict())
    torch.testing.assert_close(measured.encode(motion), (whole - 0.5) / 2.0)
    torch.testing.assert_close(measured.first_state(), model.first_state())
    frames = [each.decode(each.encode(motion), each.first_state(), reference)[0] for each in (model, measured)]
    torch.testing.assert_close(*frames, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_untrained_decoder_shows_mostly_the_portrait() -> None:
    model = network()
    reference = model.reference(picture(1))
    frames, _ = model.decode(latents(1), torch.zeros(1, 1, 12), reference)
    assert torch.nn.functional.cosine_similarity(frames[0, :, 0].flatten(), reference[0].flatten(), dim=0) > 0.7


def test_no_flow_leaves_an_image_as_it_is_and_a_flow_fetches_from_there() -> None:
    image = picture(1)
    torch.testing.assert_close(bend(image, torch.zeros(1, 2, 8, 8)), image, atol=1e-5, rtol=1e-5)
    right = torch.zeros(1, 2, 8, 8)
    right[:, 0] = 2 * 4 / 64
    torch.testing.assert_close(bend(image, right)[..., :-4], image[..., 4:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"image_size": 100}, "image_size"), ({"latents_mean": (0.0,)}, "latents_")],
)
def test_sizes_that_cannot_work_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        MotionDecoder(dataclasses.replace(SMALL, **change))  # type: ignore[arg-type]
