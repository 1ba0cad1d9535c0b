"""Results of long work that survive an interruption: one JSON line per finished step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import OutputError


def key_of(*parts: object) -> str:
    """A short hash of JSON-able parts: the same inputs give the same key."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Journal:
    """A file of finished steps. A line that was cut off when the work was stopped is done again."""

    def __init__(self, path: Path) -> None:
        """Read what is there, and make the folder where there is none.

        Raises:
            OutputError: the folder or the file cannot be used.
        """
        self._path = path
        self._done: dict[str, Any] = {}
        try:
            self._read(path)
        except OSError as error:
            raise self._unwritable(error) from None

    def _read(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if path.is_file():
            content = path.read_bytes()
            for line in content.splitlines(keepends=True):
                try:
                    key, value = json.loads(line)
                except (ValueError, TypeError, RecursionError):
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
            self.put(key, compute())
        return self._done[key]

    def put(self, key: str, result: Any) -> None:
        """Write a step's result down, which must be JSON-able.

        Raises:
            OutputError: the file cannot be written.
        """
        line = json.dumps([key, result])
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise self._unwritable(error) from None
        self._done[key] = json.loads(line)[1]

    def found(self, key: str) -> Any:
        """The result of a step that has been finished, else None."""
        return self._done.get(key)

    def _unwritable(self, error: OSError) -> OutputError:
        reason = error.strerror or type(error).__name__
        return OutputError(
            f"{str(self._path)!r} cannot be written ({reason}); free some space or choose another folder."
        )
