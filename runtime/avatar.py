"""`Avatar`: a model and a portrait, opened once and shared by any number of sessions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .chunk_loop import ChunkLoop, encode_reference
from .contract import check_contract
from .engine import Engine
from .engines import load_engines
from .errors import BundleError, SessionError
from .portrait import load_portrait
from .session import Session
from .spec import ModelSpec


class Avatar:
    """Engines and an encoded portrait; immutable, so sessions may use it from several threads."""

    def __init__(
        self, spec: ModelSpec, engines: Mapping[str, Engine], portrait: NDArray[np.uint8], precision: str
    ) -> None:
        """Encode the portrait.

        Args:
            spec: the model.
            engines: an engine for every graph of the contract.
            portrait: uint8 [image_size, image_size, 3] RGB.
            precision: the graphs' precision, for reports.

        Raises:
            EngineError: the encoder does not fit its contract.
            NumericalError: the portrait's latents hold NaN or Inf.
        """
        self.spec, self.precision = spec, precision
        self.notes: tuple[str, ...] = ()
        self.engine, self.device = engines["dit"].backend, engines["dit"].device
        self._engines: Mapping[str, Engine] = engines
        self._reference = encode_reference(spec, engines["vae_encoder"], portrait)
        self._closed = False

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        portrait: str | Path | NDArray[Any] | None = None,
        *,
        steps: int | None = None,
        threads: int | None = None,
        engine: str | None = None,
        fallback: bool = False,
    ) -> Avatar:
        """Check a bundle, load its graphs and encode the portrait.

        Args:
            bundle: the folder that `rap-export` wrote.
            portrait: a picture file or uint8 [H, W, 3] RGB array; None takes the bundle's golden portrait.
            steps: denoise steps per chunk; None takes the spec's.
            threads: threads per engine; None takes every core that the process may use.
            engine: "tensorrt-rtx", "tensorrt" or the path inside the bundle of a plan; None takes ONNX Runtime.
            fallback: go on with ONNX Runtime where the plans cannot run; `notes` then says why.

        Raises:
            BundleError: the bundle is incomplete, changed, too new or not to be trusted.
            EngineError: an engine cannot be loaded; a `PreflightError` if a plan cannot run here.
            PortraitError: the picture cannot be read.
            SpecError: `steps` is less than 1.
        """
        if not isinstance(bundle, Bundle):
            bundle = Bundle.open(bundle)
        check_contract(bundle.manifest)
        spec = bundle.manifest.spec if steps is None else bundle.manifest.spec.with_steps(steps)
        if portrait is None:
            golden = bundle.manifest.golden.get("portrait")
            if golden is None:
                raise BundleError("The bundle has no golden portrait; pass a portrait.")
            bundle.verify([golden])
            portrait = bundle.path(golden)
        picture = load_portrait(portrait, spec.image_size)
        loaded = load_engines(bundle, engine, fallback=fallback, threads=threads)
        avatar = cls(spec, loaded.engines, picture, bundle.manifest.precision)
        avatar.notes = loaded.notes
        return avatar

    def session(self, *, seed: int = 0, sample_rate: int | None = None) -> Session:
        """Open a stream.

        Args:
            seed: of the noise; the same seed and audio give the same frames.
            sample_rate: of the audio that will be pushed, in Hz; None means the spec's.

        Raises:
            AudioError: the sample rate is impossible.
            SessionError: the avatar is closed.
        """
        if self._closed:
            raise SessionError("The avatar is closed; open it again with Avatar.open().")
        loop = ChunkLoop(self.spec, self._engines, self._reference, seed)
        return Session(self.spec, loop, self.spec.sample_rate if sample_rate is None else sample_rate)

    def close(self) -> None:
        """Let go of the engines; open sessions keep them until they are closed."""
        self._closed = True
        self._engines = {}

    def __enter__(self) -> Avatar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
