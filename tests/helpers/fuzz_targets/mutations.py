"""Good documents and files with a few places changed: they get further into a reader than nonsense does."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

# Values at which readers have been seen to break.
_NUMBERS = [0, -1, 1, 2, 3, 7, 255, 256, 1 << 15, 1 << 31, (1 << 32) + 1, 1 << 53, 1 << 63, 1 << 64, 10**20, 10**400]
_NUMBERS += [0.0, -0.0, 0.5, -0.5, 1.5, 1e-320, 1e20, 1e308, -1e308, float("nan"), float("inf"), float("-inf")]
_TEXTS = ["", " ", ".", "..", "/", "../x", "/dev/zero", "\0", "\n", "\x1b[2J\x1b]0;x\a", "\u202e", "\ud800", "ä", "𝄞"]
_TEXTS += ["8.9", "1e9", "x" * 3000, "'; echo x; '", "$(echo x)", "--help", "float32", "nan", "9" * 400]
_DEEP: Any = 0
for _ in range(200):
    _DEEP = [_DEEP]
_OTHERS = [None, True, False, [], {}, [0], {"": 0}, _DEEP, [1] * 5000, {"graph": {}}, [[]], [{}]]

AWKWARD = (
    st.sampled_from([*_NUMBERS, *_TEXTS, *_OTHERS]).map(copy.deepcopy)
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
)


@st.composite
def json_mutants(draw: st.DrawFn, document: Any) -> str:
    """JSON texts of a good `document` with up to three of its values replaced, removed, doubled or renamed."""
    mutant = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        places = list(_places(mutant))
        if not places:
            break
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "rename", "exchange"]))
        if change == "replace":
            parent[key] = draw(AWKWARD)
        elif change == "exchange":
            parent[key] = copy.deepcopy(draw(st.sampled_from([other[at] for other, at in places])))
        elif change == "remove":
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, parent[key])
        elif change == "rename":
            parent[draw(st.text(max_size=8) | st.sampled_from(_TEXTS))] = parent.pop(key)
        else:
            parent[key] = [parent[key], parent[key]]
    return json.dumps(mutant)


@st.composite
def byte_mutants(draw: st.DrawFn, content: bytes, head: int = 4096) -> bytes:
    """A good file's `content` with bytes of its first `head` changed, put in or taken out, or with its end cut off."""
    mutant = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(min(len(mutant), head) - 1, 0)))
        change = draw(st.sampled_from(["write", "write", "insert", "remove", "cut", "repeat"]))
        if change == "cut":
            del mutant[at:]
        elif change == "remove":
            del mutant[at : at + draw(st.integers(1, 64))]
        elif change == "repeat":
            mutant[at:at] = mutant[at : at + draw(st.integers(1, 64))]
        else:
            piece = draw(_PIECES)
            mutant[at : at + (len(piece) if change == "write" else 0)] = piece
    return bytes(mutant)


_PIECES = st.sampled_from(
    [
        number.to_bytes(size, order)
        for size in (1, 2, 4, 8)
        for number in (0, 1, 127, 128, 255, 1 << 15, (1 << 16) - 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)
        if number < 1 << 8 * size
        for order in ("little", "big")
    ]
) | st.binary(min_size=1, max_size=8)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (parent, key) of a JSON document, the first of long lists alone."""
    entries = list(node.items()) if isinstance(node, dict) else list(enumerate(node))[:8]
    for key, value in entries:
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)
