"""Commands for people to paste into a shell, whatever is in the names that they hold."""

from __future__ import annotations

import shlex


def command_line(*words: object) -> str:
    """The words as one line, quoted where the shell needs it."""
    return shlex.join(map(str, words))


def named_command(*words: object) -> str:
    """The same for the middle of a sentence: between quotes, unless it holds some of its own."""
    line = command_line(*words)
    return line if "'" in line else f"'{line}'"
