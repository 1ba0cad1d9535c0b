"""The block-causal DiT: latent by latent over a cache it says what it says of a whole clip at once."""

import dataclasses

import pytest
import torch

from rap_edge.models.causal.dit import CausalDiT, CausalDiTConfig
from rap_edge.runtime.errors import CheckpointError

SMALL = CausalDiTConfig(
    channels=5, dim=24, ffn_dim=32, freq_dim=16, num_heads=2, num_layers=3, past=4, audio_width=6, audio_frames=3,
    audio_tokens=2, audio_hidden=12,
)  # fmt: skip
COUNT = 9


def network() -> CausalDiT:
    dit = CausalDiT(SMALL)
    dit.reset_parameters(torch.Generator().manual_seed(0))
    with torch.no_grad():
        dit.head.weight.mul_(20)
    return dit.eval()


def clip() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "clean": torch.randn(1, COUNT, 5, generator=generator),
        "noisy": torch.randn(1, COUNT, 5, generator=generator),
        "timestep": torch.rand(1, COUNT, generator=generator) * 1000,
        "features": torch.randn(1, COUNT, 3, 6, generator=generator),
        "reference": torch.randn(1, 5, generator=generator),
    }


@torch.no_grad()
def test_latent_by_latent_over_the_cache_is_the_whole_clip() -> None:
    dit, given = network(), clip()
    whole = dit(**given)
    past, reference = dit.no_past(), given["reference"].view(1, 5, 1, 1, 1)
    for index in range(COUNT):
        state = dit.conditioner(given["features"][:, index : index + 1])
        noisy, clean = (given[name][:, index].view(1, 5, 1, 1, 1) for name in ("noisy", "clean"))
        velocity, _ = dit.denoise(noisy, reference, given["timestep"][:, index], state, past)
        torch.testing.assert_close(velocity.flatten(), whole[0, index], atol=1e-5, rtol=1e-4)
        _, past = dit.denoise(clean, reference, torch.zeros(1), state, past)
    assert past.known.sum() == SMALL.past


@torch.no_grad()
@pytest.mark.parametrize(
    ("changed", "felt"), [("clean", range(4, 8)), ("noisy", range(3, 4)), ("features", range(3, 9))]
)
def test_a_latent_is_felt_by_those_after_it_within_the_window(changed: str, felt: range) -> None:
    dit, given = network(), clip()
    before = dit(**given)
    given[changed][:, 3] += 1.0
    moved = (dit(**given) - before).abs().amax((0, 2)) > 1e-6
    nearest = {index for index in range(COUNT) if moved[index]}
    assert min(nearest) == felt[0]
    # Over several layers the window reaches further back, as a cache does.
    assert set(felt) <= nearest or changed == "noisy"
    if changed == "noisy":
        assert nearest == set(felt)


@torch.no_grad()
def test_an_unknown_past_is_no_past() -> None:
    dit, given = network(), clip()
    state = dit.conditioner(given["features"][:, :1])
    latent, reference = given["noisy"][:, 0].view(1, 5, 1, 1, 1), given["reference"].view(1, 5, 1, 1, 1)
    empty = dit.no_past()
    filled = empty._replace(keys=torch.randn_like(empty.keys), values=torch.randn_like(empty.values))
    first, _ = dit.denoise(latent, reference, torch.tensor([500.0]), state, empty)
    second, _ = dit.denoise(latent, reference, torch.tensor([500.0]), state, filled)
    torch.testing.assert_close(first, second)


def test_sizes_that_cannot_work_are_named() -> None:
    with pytest.raises(CheckpointError, match="heads"):
        CausalDiT(dataclasses.replace(SMALL, num_heads=5))
