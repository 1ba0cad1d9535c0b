"""The README, CONTRIBUTING, the pages of docs/, and the fenced blocks in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .places import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, and its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    fence, start, language, lines = False, 0, "", []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif fence:
            yield Block(page, start, language, "\n".join(lines) + "\n")
            fence = False
        else:
            fence, start, language, lines = True, number, line[3:].strip(), []


BLOCKS = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def program(page: str) -> str:
    """The only program in Python of a page."""
    (block,) = [block for block in PYTHON if block.page.name == page]
    return block.text
