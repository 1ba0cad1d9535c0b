"""Results of long work that survive an interruption: one JSON line per finished step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def key_of(*parts: object) -> str:
    """A short hash of JSON-able parts: the same inputs give the same key."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Journal:
    """A file of finished steps. A line that was cut off when the work was stopped is done again."""

    def __init__(self, path: Path) -> None:
        """Read what is there."""
        self._path = path
        self._done: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if path.is_file():
            content = path.read_bytes()
            for line in content.splitlines(keepends=True):
                try:
                    key, value = json.loads(line)
                except (ValueError, TypeError):
                    break
                self._done[str(key)] = value
                whole += len(line)
            if whole < len(content):
                path.write_bytes(content[:whole])

    def __contains__(self, key: str) -> bool:
        return key in self._done

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The step's result, computed and written down if it is not there; it must be JSON-able."""
        if key not in self._done:
            value = json.loads(json.dumps(compute()))
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([key, value]) + "\n")
            self._done[key] = value
        return self._done[key]
