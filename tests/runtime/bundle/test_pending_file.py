import errno
import os
from pathlib import Path

import pytest

from rap_edge.runtime.bundle.pending_file import PendingFile, remove_left_behind
from rap_edge.runtime.errors import OutputError


def write(path: Path, content: bytes = b"new") -> None:
    with PendingFile(path) as file:
        file.write(content)
        file.commit()


def refuse_to_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file takes the place of another, as in a sticky folder, over a mount, or under a player on Windows."""

    def busy(path: Path, target: Path) -> Path:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "replace", busy)


def test_a_complete_file_that_cannot_take_its_name_is_kept_where_the_sentence_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "talk.mp4"
    path.write_bytes(b"old")
    refuse_to_replace(monkeypatch)
    with pytest.raises(OutputError, match=r"replaced \(Device or resource busy\); the new file is complete") as caught:
        write(path)
    assert path.read_bytes() == b"old"
    (kept,) = (other for other in tmp_path.iterdir() if other != path)
    assert kept.read_bytes() == b"new"
    assert (kept.suffix, kept.name.startswith("talk-")) == (".mp4", True)
    assert repr(str(kept)) in str(caught.value)


def test_a_complete_file_that_cannot_be_renamed_at_all_stays_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_replace(monkeypatch)
    monkeypatch.setattr(Path, "rename", Path.replace)
    with pytest.raises(OutputError) as caught:
        write(tmp_path / "talk.mp4")
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == b"new"
    assert repr(str(kept)) in str(caught.value)


def test_a_file_that_was_not_completed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="free some space"):
        write(tmp_path / "talk.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a" * 251 + ".mp4", "\N{GRINNING FACE}" * 62 + ".mp4", "\N{HIRAGANA LETTER A}" * 85])
def test_every_valid_name_can_be_written(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    refuse_to_replace(monkeypatch)
    with pytest.raises(OutputError, match="the new file is complete"):
        write(tmp_path / name)


def test_what_a_process_that_died_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    long = "x" * 250
    left = [PendingFile(tmp_path / name) for name in ("a.mp4", "[b]\n.mp4", long)]
    others = [PendingFile(tmp_path / "c.mp4"), PendingFile(tmp_path / "a.mp4.part")]
    (tmp_path / ".a.mp4.part").touch()
    (tmp_path / "a.mp4").touch()
    remove_left_behind([tmp_path / "a.mp4", tmp_path / "[b]\n.mp4", tmp_path / long, tmp_path / "none" / "a.mp4"])
    kept = {Path(file.name.removeprefix("file:")).name for file in others} | {".a.mp4.part", "a.mp4"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    for file in (*left, *others):
        file.discard()
