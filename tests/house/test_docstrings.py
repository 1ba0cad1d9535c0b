"""What a public function raises stands in its docstring; that it has one is the linter's business."""

import ast
from collections.abc import Iterator
from pathlib import Path

from helpers.places import ROOT

PACKAGES = ("runtime", "export", "calibration", "models", "integrations", "fleet")
# Another docstring says it.
REFERENCES = ("see `", "as `")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_functions(node: ast.AST, inside: str = "") -> Iterator[tuple[str, Function]]:
    """Functions and methods that others may call, with their names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from public_functions(child, f"{child.name}.")
        elif isinstance(child, Function) and (child.name == "__init__" or not child.name.startswith("_")):
            yield inside + child.name, child


def raised(function: Function) -> set[str]:
    """The errors that the function's own code makes."""
    errors = {
        node.exc.func.id
        for node in ast.walk(function)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    return {name for name in errors if name.endswith("Error") and name[0].isupper()} - {"AssertionError"}


def unannounced(file: Path) -> list[str]:
    found = []
    for name, function in public_functions(ast.parse(file.read_text())):
        told = ast.get_docstring(function) or ""
        if not any(reference in told.lower() for reference in REFERENCES):
            found += [f"{file}: {name} raises {error}" for error in sorted(raised(function)) if error not in told]
    return found


def test_what_a_public_function_raises_stands_in_its_docstring() -> None:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 100
    assert [line for file in files for line in unannounced(file)] == []
