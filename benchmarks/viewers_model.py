"""What several viewers could gain on a GPU that is not here: a model of the denoiser's products, not a measurement.

    python benchmarks/viewers_model.py

A product of M rows is done in tiles of 128 x 128; each multiprocessor does one at a time, and the last wave is seldom
full. It takes as long as its waves, as its bytes, or as the floor of a kernel, whichever is longest. In turn, B viewers
take B times that. One batch has B times the rows and reads the weights once. Side by side, kernels of B streams share
the multiprocessors: at best as if there were no waves, and never shorter than one viewer's chain of kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rap_edge.models.presets import PRESETS
from rap_edge.runtime.spec import ModelSpec

TILE = 128
VIEWERS = (2, 4)
# The feed-forward's width over the hidden width, which specs do not hold.
FEED_FORWARD = {"rap-small": 3.0, "flashhead-lite": 8960 / 1536, "rap-1.3b": 8960 / 1536}


@dataclass(frozen=True)
class Gpu:
    """Of a vendor's data sheet: multiprocessors, dense fp16 operations and bytes per second; and a kernel's floor."""

    name: str
    multiprocessors: int
    half: float
    bandwidth: float
    floor: float = 2e-6


# NVIDIA's data sheets: H100 SXM, GeForce RTX 4090 (fp32 accumulation), Jetson AGX Orin 64 GB.
GPUS = (
    Gpu("H100", 132, 989e12, 3352e9),
    Gpu("RTX 4090", 128, 165.2e12, 1008e9),
    Gpu("AGX Orin", 16, 85e12, 204.8e9),
)
# Kernels reach about this share of the peak while a multiprocessor has a tile.
EFFICIENCY = 0.6


@dataclass(frozen=True)
class Product:
    """[rows, depth] x [depth, columns]."""

    rows: int
    depth: int
    columns: int

    def full(self, gpu: Gpu) -> float:
        """Seconds if every multiprocessor were busy all the time."""
        tiles = math.ceil(self.rows / TILE) * math.ceil(self.columns / TILE)
        return tiles * 2.0 * TILE * TILE * self.depth / (gpu.half * EFFICIENCY)

    def traffic(self, gpu: Gpu, batch: int = 1) -> float:
        """Seconds of its bytes in fp16, the weights read once per `batch`."""
        moved = self.rows * (self.depth + self.columns) + self.depth * self.columns / batch
        return 2.0 * moved / (gpu.bandwidth * EFFICIENCY)

    def alone(self, gpu: Gpu) -> float:
        """Seconds of the kernel with the GPU to itself."""
        tiles = math.ceil(self.rows / TILE) * math.ceil(self.columns / TILE)
        waves = math.ceil(tiles / gpu.multiprocessors) * gpu.multiprocessors / tiles
        return max(self.full(gpu) * waves, self.traffic(gpu), gpu.floor)


def products(spec: ModelSpec) -> list[Product]:
    """Of one denoise step: self-attention's four, the audio attention's two, the feed-forward's two, per layer."""
    rows, width = spec.batch * spec.chunk_latents * math.prod(spec.latent_size), spec.hidden_dim
    wide = round(FEED_FORWARD[spec.name] * width)
    block = [Product(rows, width, width)] * 6 + [Product(rows, width, wide), Product(rows, wide, width)]
    return block * spec.num_layers


def gains(spec: ModelSpec, gpu: Gpu, viewers: int) -> tuple[float, float]:
    """How many times as fast as in turn: one batch, and side by side at best."""
    chain = sum(item.alone(gpu) for item in products(spec))
    wider = [Product(viewers * item.rows, item.depth, item.columns) for item in products(spec)]
    batch = sum(item.alone(gpu) for item in wider)
    packed = viewers * sum(max(item.full(gpu), item.traffic(gpu)) for item in products(spec))
    return viewers * chain / batch, viewers * chain / max(packed, chain)


def main() -> None:
    """Print a table."""
    print("| GPU | model | products of a step, ms | viewers | one batch | side by side, at best |")
    print("|---|---|--:|--:|--:|--:|")
    for gpu in GPUS:
        for name in FEED_FORWARD:
            spec = PRESETS[name]
            for viewers in VIEWERS:
                batch, beside = gains(spec, gpu, viewers)
                step = 1e3 * sum(item.alone(gpu) for item in products(spec))
                print(f"| {gpu.name} | {name} | {step:.2f} | {viewers} | {batch:.2f} x | {beside:.2f} x |")


if __name__ == "__main__":
    main()
