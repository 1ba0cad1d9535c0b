"""Long work goes on where it was cut off."""

from pathlib import Path

import pytest

from rap_edge.runtime.bundle.journal import Journal, key_of
from rap_edge.runtime.errors import OutputError


def test_finished_steps_are_not_done_again(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    assert Journal(path).get("a", lambda: {"x": 1}) == {"x": 1}
    with path.open("a") as stream:
        stream.write('["b", {"cut')
    again = Journal(path)
    assert again.get("a", lambda: pytest.fail("done already")) == {"x": 1}
    assert again.get("b", lambda: 2) == 2
    assert Journal(path).get("b", lambda: pytest.fail("done already")) == 2


def test_a_step_that_fails_is_not_written_down(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    journal = Journal(tmp_path / "steps.jsonl")
    with pytest.raises(KeyboardInterrupt):
        journal.get("a", stop)
    assert "a" not in Journal(tmp_path / "steps.jsonl")


def test_keys_follow_content() -> None:
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/steps\.jsonl' cannot be written"):
        Journal(tmp_path / "file" / "steps.jsonl")
