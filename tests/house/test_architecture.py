"""The page about the house names files and rooms that are there."""

import re

from helpers.places import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PICTURE = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    table = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", table, re.M)][2:]


def test_each_of_thirty_changes_belongs_to_one_file_that_is_there() -> None:
    changes = rows("Thirty changes and their files")
    assert len({change for change, _ in changes}) == len(changes) == 30
    assert len({file for _, file in changes}) == 30
    for _, file in changes:
        found = re.fullmatch(r"`([\w./]+)`", file)
        assert found, file
        assert (ROOT / found[1]).is_file(), file


def test_every_place_to_add_something_is_there() -> None:
    for named in re.findall(r"`((?:runtime|models|export|calibration|fleet|tests)/[\w./]+)(<name>\S*)?`", PAGE):
        place = ROOT / named[0]
        assert place.is_dir() if named[1] or named[0].endswith("/") else place.is_file(), named


def test_the_picture_has_every_room_of_the_runtime() -> None:
    named = set(re.findall(r">(\w+)<", PICTURE))
    assert {init.parent.name for init in (ROOT / "runtime").glob("*/__init__.py")} <= named
