"""Which state of this repository gave a figure."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commit() -> str:
    """The commit that is checked out, "-dirty" if files differ from it.

    Without git it is what `make gpu-prepare` wrote down, and "unknown" where there is neither.
    """
    asked = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        found = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        found = ""
    written = ROOT / ".gpu" / "a" / "commit"
    return found or (written.read_text().strip() if written.is_file() else "unknown")
