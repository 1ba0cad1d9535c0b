from rap_edge.models import random_networks
from rap_edge.models.nano_vae import NanoVAE
from rap_edge.models.presets import RAP_SMALL


def test_the_small_preset_is_of_a_size_for_any_machine() -> None:
    networks = random_networks(RAP_SMALL, seed=0)
    assert isinstance(networks.vae, NanoVAE)
    weights = sum(parameter.numel() for module in networks.modules for parameter in module.parameters())
    assert weights < 25_000_000
