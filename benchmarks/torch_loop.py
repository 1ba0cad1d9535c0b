"""The chunk loop in PyTorch with all of its state on the device: what the toolkit's engines are compared with.

Colour matching is left out, in PyTorch's favour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from rap_edge.export.capture.five_graphs import FrameEncoder, graph_sources
from rap_edge.models.networks import Networks
from rap_edge.runtime.loop.interface import frame_windows
from rap_edge.runtime.spec import unknown

Noise = Callable[[int, int], Tensor]
"""Standard normal numbers [C, k, h, w] of a chunk and a draw."""


def compile_with_graphs(module: nn.Module) -> Callable[..., object]:
    """`torch.compile` with CUDA graphs, for modules that hand their results to each other."""
    run = torch.compile(module, mode="reduce-overhead")

    def call(*inputs: Tensor) -> object:
        torch.compiler.cudagraph_mark_step_begin()
        # The next call overwrites what a graph gave.
        return tree_map_only(Tensor, torch.clone, run(*inputs))

    return call


class TorchLoop:
    """Renders consecutive chunks of one session."""

    def __init__(
        self,
        networks: Networks,
        portrait: NDArray[np.uint8],
        device: torch.device,
        *,
        noise: Noise | None = None,
        wrap: Callable[[nn.Module], Callable[..., object]] = lambda module: module,
    ) -> None:
        """Move the networks to the device and encode the portrait.

        Args:
            networks: in the precision to be measured.
            portrait: uint8 [H, W, 3].
            device: where everything happens.
            noise: None draws with PyTorch's own generator.
            wrap: what is done to every network before it is used, such as `torch.compile`.
        """
        spec = networks.spec
        self._spec, self._device = spec, device
        self._dtype = next(networks.dit.parameters()).dtype
        modules = {name: source.module for name, source in graph_sources(networks).items()}
        modules["vae_encoder"] = HalfFrameEncoder(networks.vae)
        self._run = {name: wrap(module.to(device)) for name, module in modules.items()}
        self._noise = noise or (lambda chunk, draw: torch.randn(spec.latent_shape, device=device))
        self._windows = torch.from_numpy(frame_windows(spec)).to(device)
        with torch.inference_mode():
            frames = torch.from_numpy(portrait).to(device).expand(spec.chunk_frames, -1, -1, -1)
            self._reference = self._run["vae_encoder"](frames).float()
        self._past: list[Tensor] = []
        self._index = 0

    @torch.inference_mode()
    def render(self, waveform: NDArray[np.float32]) -> tuple[NDArray[np.uint8], Mapping[str, float]]:
        """The next chunk's new frames, uint8 on the host, from [window_samples] float32; and seconds per stage."""
        spec, laps = self._spec, _Laps(self._device)
        features = self._run["audio_encoder"](torch.from_numpy(waveform).to(self._device, self._dtype)[None])
        laps.end("audio_encoder")
        windows = features[self._windows][None].to(self._dtype)
        if spec.batch > 1:
            windows = torch.cat((windows, torch.zeros_like(windows)))
        states = self._run["conditioner"](windows)
        laps.end("conditioner")
        latents = self._denoise(states)
        laps.end("denoise")
        frames, _ = self._run["vae_decoder"](latents[None].to(self._dtype))
        laps.end("vae_decoder")
        if spec.carry == "clean":
            self._past = [self._run["vae_encoder"](frames[-spec.carried_frames :])[0].float()]
            laps.end("vae_encoder")
        self._index += 1
        new = frames[-spec.new_frames :]
        if new.dtype != torch.uint8:
            new = (new * 127.5 + 127.5).round().clamp(0.0, 255.0).to(torch.uint8)
        host = new.cpu().numpy()
        return host, laps.seconds()

    def _denoise(self, states: tuple[Tensor, ...]) -> Tensor:
        spec = self._spec
        levels = spec.schedule()
        initial = self._noise(self._index, 0)
        latents, path = initial.clone(), []
        reference = self._reference.to(self._dtype).expand(spec.batch, -1, -1, -1, -1)
        for level, (t, t_next) in enumerate(pairwise(levels)):
            self._place(latents, initial, level, t, path)
            batch = latents.to(self._dtype)[None].expand(spec.batch, -1, -1, -1, -1)
            velocity = self._run["dit"](
                batch, reference, torch.tensor([spec.timestep_of(t)], device=self._device), *states
            ).float()
            if spec.batch > 1:
                velocity = velocity[1:] + spec.guidance_scale * (velocity[:1] - velocity[1:])
            match spec.solver:
                case "euler":
                    latents += (t_next - t) / 1000.0 * velocity[0]
                case "renoise":
                    clean, share = latents - t / 1000.0 * velocity[0], t_next / 1000.0
                    latents = (1.0 - share) * clean + share * self._noise(self._index, level + 1) if share else clean
                case other:
                    raise unknown("solver", other)
        self._place(latents, initial, len(levels) - 1, 0.0, path)
        if spec.carry == "noisy":
            self._past = path
        return latents

    def _place(self, latents: Tensor, initial: Tensor, level: int, t: float, path: list[Tensor]) -> None:
        """Overwrite the first latents by the past at this level, and remember the last ones."""
        carried = self._spec.carried_latents
        if self._past:
            latents[:, :carried] = self._past[level if self._spec.carry == "noisy" else 0]
        else:
            share = t / 1000.0 if self._spec.carry == "noisy" else 0.0
            latents[:, :1] = (1.0 - share) * self._reference[0, :, :1] + share * initial[:, :1]
        path.append(latents[:, -carried:].clone())


class HalfFrameEncoder(FrameEncoder):
    """Pixels in the networks' precision, where the exported graph has them in fp32."""

    def forward(self, frames: Tensor) -> Tensor:
        pixels = frames.float() * (1.0 / 127.5) - 1.0 if frames.dtype == torch.uint8 else frames
        pixels = pixels.to(next(self.parameters()).dtype)
        return self.vae.encode(pixels.permute(3, 0, 1, 2).unsqueeze(0))


class _Laps:
    """Seconds per stage: by events of the GPU, or by the clock where there is none."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        self._marks: list[tuple[str, object]] = []
        self.end("")

    def end(self, stage: str) -> None:
        if self._gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((stage, event))
        else:
            self._marks.append((stage, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        if self._gpu:
            torch.cuda.synchronize()
            return {stage: a.elapsed_time(b) / 1e3 for (_, a), (stage, b) in pairwise(self._marks)}
        return {stage: b - a for (_, a), (stage, b) in pairwise(self._marks)}
