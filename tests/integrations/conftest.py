from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.bundles.tiny_bundle import write_tiny_bundle
from helpers.pages import program as text_of
from helpers.places import ROOT


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """The names of a page's program, imported in its reader's folder, with a tiny model in nano's place."""
    (tmp_path / "build").mkdir()
    write_tiny_bundle(tmp_path / "build" / "nano-fp32")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)

    def imported(page: str) -> dict[str, Any]:
        names = {"__name__": "program"}
        exec(compile(text_of(page), page, "exec"), names)
        return names

    return imported
