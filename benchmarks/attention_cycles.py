"""What the fused attention's machine code promises: clocks of a step, counted, and the time of a call, predicted.

    make plugins && pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
    python benchmarks/attention_cycles.py [--library FILE]

Counted in the disassembly, for 128 query rows and 32 keys on one multiprocessor: the clocks that products, reads
of shared memory, exponentials and the issue of instructions take each. Predicted from them: a step takes as long as the
busiest of the four, or as its own chain of products, softmax and latencies if a scheduler has too few other warps
to hide it. The rates are those of NVIDIA's data sheets and CUDA's table of throughputs; the latencies are assumptions,
named below. Nothing is measured here: benchmarks/hybrid_attention.py does that, and tells who was right.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fused_attention import Case
from hybrid_attention import SPEED, moved_bytes, operations

DEFAULT_LIBRARY = Path(__file__).parent.parent / "build" / "plugins" / "librap_hybrid_attention.so"
UNIT_ROWS, UNIT_KEYS = 128, 32
# Warps of an instruction that a multiprocessor starts in a clock, and what it reads of shared memory.
SCHEDULERS = 4
EXPONENTIALS = 16
SHARED_BYTES = 128
# Clocks, assumed. Of a step beside its instructions: products, two shuffles and a vote wait for each other.
STEP_LATENCY = 250
# Of a tile of query rows: its rows come from memory and its results go there.
ROWS_LATENCY = 2000
# Of a block: it starts, and the first keys come.
BLOCK_LATENCY = 2000


@dataclass(frozen=True)
class Card:
    """A GPU; rates of fp16 products with sums in fp32.

    Attributes:
        name: as it is sold.
        architecture: of its machine code.
        multiprocessors: of the whole card.
        products: multiply-adds of a multiprocessor in a clock, at the best.
        warp_products: with mma.sync; the same but on Hopper, where 62 % has been published.
        gigahertz: boost clock.
        gigabytes: per second, of memory.
        attained: shares of the boost clock and of `gigabytes` that large products and copies keep up.
    """

    name: str
    architecture: str
    multiprocessors: int
    products: int
    warp_products: int
    gigahertz: float
    gigabytes: float
    attained: tuple[float, float] = (0.8, 0.9)


CARDS = (
    Card("H100 SXM", "sm_90a", 132, 2048, 1270, 1.83, 3350),
    Card("A100", "sm_80", 108, 1024, 1024, 1.41, 2039),
    Card("RTX 4090", "sm_89", 128, 256, 256, 2.52, 1008),
    Card("Jetson AGX Orin", "sm_87", 16, 1024, 1024, 1.3, 205),
    Card("RTX 5090", "sm_120", 170, 256, 256, 2.41, 1792),
)


@dataclass(frozen=True)
class Instruction:
    """One line of the disassembly."""

    address: int
    operation: str
    target: int | None  # of a branch


@dataclass(frozen=True)
class Step:
    """What a warp executes for one step of its walk.

    Attributes:
        rows: of the warp.
        keys: of the step.
        products: multiply-adds, by the width of the instruction in columns.
        shared: clocks in which the multiprocessor reads shared memory for it.
        exponentials: instructions.
        softmax: instructions between the first product and the last.
        issued: instructions, those of the walk around it included.
        warpgroups: whether products run beside the warp.
    """

    rows: int
    keys: int
    products: int
    shared: float
    exponentials: int
    softmax: int
    issued: float
    warpgroups: bool

    @property
    def per_unit(self) -> float:
        """Steps of warps for 128 rows and 32 keys."""
        return UNIT_ROWS * UNIT_KEYS / (self.rows * self.keys)


@dataclass(frozen=True)
class Clocks:
    """Of a multiprocessor for 128 rows and 32 keys."""

    tensor: float
    shared: float
    exponential: float
    issue: float
    chain: float  # of a step of one warp of each scheduler

    @property
    def step(self) -> float:
        """With two warps per scheduler."""
        return max(self.tensor, self.shared, self.exponential, self.issue, self.chain / 2)


_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")


def instructions(disassembly: str) -> list[Instruction]:
    """Those of one function."""
    found = []
    for line in disassembly.splitlines():
        if match := _LINE.search(line):
            target = re.search(r"0x([0-9a-f]+)", match[3]) if match[2].startswith("BRA") else None
            found.append(Instruction(int(match[1], 16), match[2], int(target[1], 16) if target else None))
    return found


def step_of(disassembly: str, rows: int) -> Step:
    """The step of the walk over the keys of the full branch, the widest that the function has.

    Args:
        disassembly: of one function.
        rows: of a warp.

    Raises:
        ValueError: there is no such step.
    """
    text = {int(match[1], 16): match[0] for match in _LINE.finditer(disassembly)}
    code = instructions(disassembly)
    # A loop's body ends with a branch back.
    loops = [(item.target, item.address) for item in code if item.target is not None and item.target < item.address]
    steps, spans = [], list(_spans(code, text, loops))
    inside = {item.address for span in spans for item in span}
    for span in spans:
        around = [loop for loop in loops if loop[0] < span[0].address and span[-1].address < loop[1]]
        low, high = min(around, key=lambda loop: loop[1] - loop[0], default=(0, -1))
        walk = sum(low <= item.address <= high and item.address not in inside for item in code)
        steps.append(_counted(span, text, rows, walk))
    if not steps:
        raise ValueError("The function has no loop over keys with two products; is it the fused attention?")
    return max(steps, key=lambda step: step.keys)


def _spans(
    code: Sequence[Instruction], text: dict[int, str], loops: Sequence[tuple[int, int]]
) -> Iterator[Sequence[Instruction]]:
    """The stretches of code with a product of queries and keys and one of weights and values.

    With warpgroups these are from the first product to the last one over transposed operands; with warps, whose loads
    run ahead of products, the body of the first innermost loop.
    """
    if not any(item.operation.startswith("HGMMA") for item in code):
        products = [
            loop for loop in loops if any(_is_product(item) for item in code if loop[0] <= item.address <= loop[1])
        ]
        for low, high in sorted(products):
            inner = any(low <= other[0] and other[1] <= high and other != (low, high) for other in products)
            body = [item for item in code if low <= item.address <= high]
            names = " ".join(item.operation for item in body)
            if not inner and "LDSM.16.M88" in names and "LDSM.16.MT88" in names:
                yield body
                return
        return
    start, last, values = -1, -1, False
    for index, item in enumerate(code):
        if not item.operation.startswith("HGMMA"):
            continue
        transposed = ".tnspB" in text[item.address]
        if not transposed and (start < 0 or values):
            if values:
                yield code[start : last + 1]
            start, values = index, False
        last, values = index, values or transposed
    if values:
        yield code[start : last + 1]


def _is_product(item: Instruction) -> bool:
    return item.operation.startswith(("HMMA", "HGMMA"))


def _counted(span: Sequence[Instruction], text: dict[int, str], rows: int, walk: int) -> Step:
    executed = list(_executed(span))
    names = [item.operation for item in executed]
    warpgroups = any(name.startswith("HGMMA") for name in names)
    shared = 4.0 * sum(name.startswith("LDSM") for name in names) + sum(name.startswith("SHFL") for name in names)
    products = columns_of_scores = 0
    for item in executed:
        if match := re.match(r"HGMMA\.64x(\d+)x16", item.operation):
            columns = int(match[1])
            products += 16 * columns * 16
            # Four warps share what is read.
            shared += columns * 16 * 2 / SHARED_BYTES / 4
            columns_of_scores = columns_of_scores if ".tnspB" in text[item.address] else columns
        elif item.operation.startswith("HMMA"):
            products += 16 * 8 * (8 if "1688" in item.operation else 16)
    exponentials = sum(name.startswith("MUFU.EX2") for name in names)
    # A warp has rows * keys scores, each exponentiated once, in 32 lanes.
    keys = columns_of_scores if warpgroups else exponentials * 32 // rows
    softmax = sum(not name.startswith(("HMMA", "HGMMA", "LDSM")) for name in names)
    # The walk goes by tiles.
    issued = len(names) + walk * keys / (64 if warpgroups else 32)
    return Step(rows, keys, products, shared, exponentials, softmax, issued, warpgroups)


def _executed(span: Sequence[Instruction]) -> Iterator[Instruction]:
    """Without what a forward branch may leave out, which is for the last tile or a new largest score."""
    skip = 0
    for index, item in enumerate(span):
        if item.address < skip:
            continue
        yield item
        if item.target is not None and item.address < item.target <= span[-1].address:
            between = [other for other in span[index:] if other.address < item.target]
            if not any(other.operation.startswith(("HMMA", "HGMMA")) for other in between):
                skip = item.target


def clocks(step: Step, card: Card) -> Clocks:
    """Of a multiprocessor of this card."""
    rate = card.products if step.warpgroups else card.warp_products
    tensor = step.products / rate
    # A scheduler's own share: a quarter of the rates.
    softmax = max(step.softmax, step.exponentials * 32 * SCHEDULERS / EXPONENTIALS)
    chain = step.products / (rate / SCHEDULERS) + softmax + STEP_LATENCY
    return Clocks(
        tensor=step.per_unit * tensor,
        shared=step.per_unit * step.shared,
        exponential=step.per_unit * step.exponentials * 32 / EXPONENTIALS,
        issue=step.per_unit * step.issued / SCHEDULERS,
        chain=step.per_unit / SCHEDULERS * chain,
    )


@dataclass(frozen=True)
class Layout:
    """How a call is cut: rows of a row tile, row tiles of a block, blocks in all, blocks that an SM holds."""

    rows: int
    tiles: int
    blocks: int
    together: int


def layout_of(case: Case, card: Card, step: Step) -> Layout:
    """What plugins/src/launch_plan.cpp chooses."""
    heads = case.batch * case.heads

    def tiles(warps: int) -> int:
        return math.ceil(case.query_tokens / (warps * step.rows))

    large = tiles(8) * 2 == tiles(4) and heads * case.frames * tiles(8) >= card.multiprocessors
    warps = 8 if large else 4
    row_tiles, together = case.frames * tiles(warps), 8 // warps
    kept = 1
    if step.warpgroups:
        options = []
        for rounds in range(1, 9):
            kept_tiles = math.ceil(row_tiles / max(1, rounds * card.multiprocessors * together // heads))
            cost = math.ceil(math.ceil(row_tiles / kept_tiles) * heads / (card.multiprocessors * together))
            options.append((cost * (4 * kept_tiles + 1), -rounds, kept_tiles))
        kept = min(options)[2]
    return Layout(warps * step.rows, kept, math.ceil(row_tiles / kept) * heads, together)


def microseconds(case: Case, card: Card, step: Step) -> float:
    """Predicted time of a call, at the clock of the floor."""
    layout = layout_of(case, card, step)
    met = (
        case.key_tokens
        if case.alpha == 1.0
        else case.frames * case.key_tokens + (case.key_tokens if case.full_tokens else 0)
    )
    units = layout.rows / UNIT_ROWS * met / UNIT_KEYS * layout.together
    rounds = math.ceil(layout.blocks / (card.multiprocessors * layout.together))
    total = rounds * (layout.tiles * (units * clocks(step, card).step + ROWS_LATENCY) + BLOCK_LATENCY)
    return max(
        total / (1e3 * card.gigahertz * card.attained[0]), moved_bytes(case) / (1e3 * card.gigabytes * card.attained[1])
    )


def floor_microseconds(case: Case, card: Card) -> float:
    """What the operations and the bytes need at rates that large products and copies attain."""
    products = operations(case) / 2 / (card.products * card.multiprocessors * 1e3 * card.gigahertz * card.attained[0])
    return max(products, moved_bytes(case) / (1e3 * card.gigabytes * card.attained[1]))


def disassembled(library: Path, architecture: str, head_dim: int, warpgroups: bool) -> str:
    """The fp16 kernel of eight warps as cuobjdump shows it.

    Raises:
        ValueError: the library has none.
    """
    wanted = f"{'Warpgroup' if warpgroups else 'Warp'}ProductsINS_4tile4HalfELi{head_dim}EEELi8E"
    for function in _functions(library, architecture):
        if wanted in function.partition("\n")[0]:
            return function
    raise ValueError(f"{str(library)!r} has no fp16 kernel of width {head_dim} for {architecture}; run `make plugins`.")


@cache
def _functions(library: Path, architecture: str) -> tuple[str, ...]:
    command = [str(find_cuobjdump()), "-sass", "-arch", architecture, str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(done.stdout.split("Function : ")[1:])


def find_cuobjdump() -> Path:
    """Of this environment's wheels, else of the PATH.

    Raises:
        ValueError: it is nowhere.
    """
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (tool := Path(folder) / "cu13" / "bin" / "cuobjdump").is_file():
            return tool
    if found := shutil.which("cuobjdump"):
        return Path(found)
    raise ValueError("cuobjdump is missing; run pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm.")


def report(library: Path) -> str:
    """Two tables in Markdown: clocks of 128 rows and 32 keys, and predicted times beside the floor."""
    counted = [
        "| card | products of | width | matrix | shared | exp | issue | chain / 2 | a step |",
        "|---|---|" + "--:|" * 7,
    ]
    sizes = ["| card | products of | " + " | ".join(SPEED) + " |", "|---|---|" + "--:|" * len(SPEED)]
    for card in CARDS:
        for warpgroups in (True, False) if card.architecture == "sm_90a" else (False,):
            kind = "warpgroups" if warpgroups else "warps"
            steps = {}
            for head_dim in (128, 64):
                rows = 16 if warpgroups else 32
                steps[head_dim] = step_of(disassembled(library, card.architecture, head_dim, warpgroups), rows)
                c = clocks(steps[head_dim], card)
                numbers = (c.tensor, c.shared, c.exponential, c.issue, c.chain / 2, c.step)
                cells = " | ".join(f"{number:.0f}" for number in numbers)
                counted.append(f"| {card.name} | {kind} | {head_dim} | {cells} |")
            cells = []
            for case in SPEED.values():
                took, floor = microseconds(case, card, steps[case.head_dim]), floor_microseconds(case, card)
                cells.append(f"{took:.1f} of {floor:.1f} us, {100 * floor / took:.0f} %")
            sizes.append(f"| {card.name} | {kind} | {' | '.join(cells)} |")
    return "\n".join([*counted, "", *sizes])


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 2 without the library or the disassembler."""
    parser = argparse.ArgumentParser(description="Count clocks in the fused attention's machine code.")
    parser.add_argument("--library", type=Path, default=DEFAULT_LIBRARY, help="default: of `make plugins`")
    arguments = parser.parse_args(argv)
    if not arguments.library.is_file():
        print(f"{str(arguments.library)!r} is missing; run `make plugins` or pass --library.", file=sys.stderr)
        return 2
    try:
        print(report(arguments.library))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
