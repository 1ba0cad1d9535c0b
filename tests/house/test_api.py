"""Holds the public interface of `rap_edge.runtime`: `api.txt` beside this file is its text."""

import ast
import dataclasses
import enum
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.pages import PYTHON
from helpers.places import ROOT

import rap_edge.export as export
import rap_edge.runtime as runtime

MADE = ("AudioFile", "Avatar", "Session")  # by read_audio, Avatar.open and Avatar.session
HELD = Path(__file__).with_name("api.txt")


def described(name: str, thing: object) -> list[str]:
    """A public name as lines of text."""
    if not callable(thing):
        return [name]
    if not inspect.isclass(thing):
        return [f"{name}{inspect.signature(thing)}"]
    if issubclass(thing, enum.Enum):
        return [f"{name}: {' | '.join(member.value for member in thing)}"]
    bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
    lines = [f"class {name}({bases})"]
    if issubclass(thing, Exception):
        return lines
    if dataclasses.is_dataclass(thing):
        lines += [f"    {field.name}: {field.type}" for field in dataclasses.fields(thing)]
    elif "Protocol" in bases:
        lines += [f"    {attribute}: {kind}" for attribute, kind in vars(thing).get("__annotations__", {}).items()]
    for attribute, value in sorted(vars(thing).items()):
        if attribute.startswith("_") and attribute not in ("__init__", "__enter__", "__aenter__", "__iter__"):
            continue
        if attribute == "__init__" and (dataclasses.is_dataclass(thing) or "Protocol" in bases or name in MADE):
            continue
        inner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if isinstance(value, property):
            lines.append(f"    {attribute}: {inspect.signature(value.fget).return_annotation} (property)")
        elif inspect.isfunction(inner):
            lines.append(f"    {attribute}{inspect.signature(inner)}")
    return lines


def public_interface() -> str:
    lines = []
    for name in sorted(runtime.__all__):
        lines += described(name, getattr(runtime, name))
    for name in export.__all__:
        lines += described(f"export.{name}", getattr(export, name))
    return "\n".join(lines) + "\n"


def test_names_and_signatures_are_what_they_were() -> None:
    """If this fails and the change is wanted: `PYTHONPATH=tests python tests/house/test_api.py` writes the new text,
    docs/api.md says what the version has to do."""
    assert public_interface() == HELD.read_text(encoding="utf-8")


def test_every_name_is_documented_in_the_manual() -> None:
    manual = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in runtime.__all__ if f"`{name}`" not in manual] == []


def test_every_public_name_and_method_has_a_docstring() -> None:
    things = [getattr(runtime, name) for name in runtime.__all__ if name != "__version__"]
    bare = [thing.__name__ for thing in things if not thing.__doc__]
    for thing in filter(inspect.isclass, things):
        bare += [
            f"{thing.__name__}.{n}" for n, v in vars(thing).items() if n[0] != "_" and callable(v) and not v.__doc__
        ]
    assert bare == []


PUBLIC = {
    "rap_edge.runtime": set(runtime.__all__),
    "rap_edge.export": set(export.__all__),
    "rap_edge.integrations.livekit": {"AvatarVideoGenerator"},
    "rap_edge.integrations.pipecat": {"AvatarVideoService"},
}
EXAMPLES = [(path.name, path.read_text(encoding="utf-8")) for path in sorted((ROOT / "examples").glob("*.py"))]


@pytest.mark.parametrize(
    ("where", "text"), [*EXAMPLES, *((str(b), b.text) for b in PYTHON)], ids=lambda text: text[:20]
)
def test_what_shows_how_to_use_us_imports_public_names(where: str, text: str) -> None:
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    ours = [node for node in imports if "rap_edge" in ast.unparse(node)]
    # A program in any language speaks to the server; ours do it without us where they show how.
    assert ours or "/api/" in text
    for node in ours:
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        assert {alias.name for alias in node.names} <= PUBLIC[str(node.module)], ast.unparse(node)


def test_the_version_is_the_packages() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert runtime.__version__ == package["project"]["version"]


def test_importing_the_package_loads_no_engine() -> None:
    code = "import sys, rap_edge.runtime as r; dir(r); print(sorted(set(sys.modules) & {'onnxruntime', 'av', 'numpy'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


if __name__ == "__main__":
    HELD.write_text(public_interface(), encoding="utf-8")
