import gc
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Reference networks are built from small random configs here; nothing may reach for a model hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Torch's threads sleep while they wait for each other, or a core that others use would stall them all.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_finish() -> None:
    """Spare the garbage collector what has been imported: it stays, and looking through it takes a tenth of the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C works in the tests and in what they start, also when the shell ignores it for a background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def shared_captures() -> Iterator[None]:
    """Exports capture equal graphs once in a run, where a chosen test exports at all."""
    with pytest.MonkeyPatch.context() as patch:
        if "rap_edge.export.capture.five_graphs" in sys.modules:
            from helpers.bundles.captures import share_captures

            share_captures(patch)
        yield


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Every test's tensors are drawn alike, whatever ran before it."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that ships, exported once as `rap-export` does by default."""
    from rap_edge.export.cli import main

    folder = tmp_path_factory.mktemp("bundles") / "nano-fp32"
    assert main(["-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle of small random networks, whose checkpoint lies beside it."""
    from helpers.bundles.small import NANO, SMALL, drawn, small_networks

    from rap_edge.export.exporter import ExportSettings, export_bundle
    from rap_edge.export.sources.network_source import NetworkSource
    from rap_edge.export.stages import Stages
    from rap_edge.models.checkpoints.own import save_networks

    folder = tmp_path_factory.mktemp("small")
    save_networks(small_networks(SMALL, NANO), folder / "checkpoint")
    source, settings = NetworkSource(folder / "checkpoint"), ExportSettings(threads=1, chunks=2)
    return export_bundle(source, folder / "bundle", settings, drawn, Stages(io.StringIO())).bundle


@pytest.fixture(scope="session")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rap-small in fp16, without the export's comparison; `half_bundle.copied` gives a copy to change."""
    from helpers.bundles.half_bundle import write_half_bundle

    from rap_edge.models import random_networks
    from rap_edge.models.presets import RAP_SMALL

    return write_half_bundle(random_networks(RAP_SMALL, 0), tmp_path_factory.mktemp("half") / "rap-small-fp16")


@pytest.fixture(scope="session")
def tensorrt(tmp_path_factory: pytest.TempPathFactory):
    """The real Python modules of TensorRT, see `real_tensorrt`."""
    from helpers.gpu.real_tensorrt import RealTensorRt

    return RealTensorRt(tmp_path_factory.mktemp("tensorrt"))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real X server without a monitor, as DISPLAY."""
    from helpers.media.virtual_screen import missing_screen, x_server

    if reason := missing_screen():
        pytest.skip(reason)
    with x_server() as display:
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
        yield display
