"""Pass `merge_movement`: chains of reshapes and transpositions become one, and elementwise work leaves them.

A chain only moves data, so an elementwise operator with a constant of one element may stand before it instead of
inside, and a mean over everything may skip it. What is left between two operators is one transposition at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..rewriter import TO_FIRST, TO_LAST, Rewriter, remove_unused, scalar, static_shape

_ELEMENTWISE = frozenset(("Add", "Sub", "Mul", "Div", "Round", "Clip", "Abs", "Neg"))
_MOVEMENT = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"))


def merge_movement(model: ir.Model) -> int:
    """Simplify every chain of static shape, in place; returns how many nodes moved or went."""
    count = 0
    while (changed := _hoist(model) + _skip(model) + _fold(model)) > 0:
        count += changed
    for node in list(model.graph):
        if node.graph is not None and _is_movement(node):
            count += _merge_from(model.graph, node)
    remove_unused(model)
    return count


def _is_movement(node: ir.Node | None) -> bool:
    """Whether the node only moves data of static shape, and is not the reordering that a convolution absorbs."""
    if node is None or node.op_type not in _MOVEMENT or node.domain != "":
        return False
    if static_shape(node.inputs[0]) is None or static_shape(node.outputs[0]) is None:
        return False
    if node.op_type == "Transpose":
        perm = tuple(node.attributes.get_ints("perm", []))
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if perm == TO_LAST and source is not None and source.op_type == "Conv":
            return False
    return True


def _data_input(node: ir.Node) -> int | None:
    """Index of the only input that is no constant of one element."""
    indices = [i for i, value in enumerate(node.inputs) if value is not None and scalar(value) is None]
    return indices[0] if len(indices) == 1 else None


def _hoist(model: ir.Model) -> int:
    count = 0
    for node in list(model.graph):
        index = _data_input(node) if node.op_type in _ELEMENTWISE else None
        if index is None or node.outputs[0].is_graph_output():
            continue
        moved = node.inputs[index]
        movement = moved.producer() if moved is not None else None
        if moved is None or movement is None or not _is_movement(movement):
            continue
        source, output = movement.inputs[0], node.outputs[0]
        assert source is not None
        rewriter = Rewriter(model.graph, node)
        inputs = [source if i == index else value for i, value in enumerate(node.inputs)]
        early = rewriter.add(node.op_type, inputs, **_attributes(node))
        early.shape = source.shape
        late = rewriter.add(movement.op_type, [early, *movement.inputs[1:]], **_attributes(movement))
        rewriter.replace(output, late)
        model.graph.remove(node, safe=True)
        if not moved.uses() and not moved.is_graph_output():
            model.graph.remove(movement, safe=True)
        count += 1
    return count


def _skip(model: ir.Model) -> int:
    """Means over everything read the data before they were moved."""
    count = 0
    for node in list(model.graph):
        if node.op_type != "ReduceMean" or node.attributes.get_int("noop_with_empty_axes", 0) != 0:
            continue
        result, moved = static_shape(node.outputs[0]), node.inputs[0]
        producer = moved.producer() if moved is not None else None
        if result is None or math.prod(result) != 1 or producer is None or not _is_movement(producer):
            continue
        rewriter = Rewriter(model.graph, node)
        mean = rewriter.add("ReduceMean", [producer.inputs[0]], keepdims=0)
        mean.shape = ir.Shape(())
        rewriter.replace(
            node.outputs[0], rewriter.add("Reshape", [mean, rewriter.constant(np.array(result, np.int64))])
        )
        model.graph.remove(node, safe=True)
        count += 1
    return count


def _fold(model: ir.Model) -> int:
    """Put scaling and shifting of a convolution's output into its weights, also behind a transposition."""
    count = 0
    for node in list(model.graph):
        if node.op_type not in ("Mul", "Add") or (index := _data_input(node)) is None:
            continue
        value, number = node.inputs[index], scalar(node.inputs[1 - index])
        source = value.producer() if value is not None else None
        if source is not None and source.op_type == "Transpose" and len(value.uses()) == 1:  # type: ignore[union-attr]
            source = source.inputs[0].producer() if source.inputs[0] is not None else None
        if value is None or number is None or source is None or source.op_type != "Conv" or len(source.inputs) != 3:
            continue
        if any(item is None or item.const_value is None for item in source.inputs[1:]):
            continue
        if len(source.outputs[0].uses()) != 1 or len(value.uses()) != 1 or value.is_graph_output():
            continue
        rewriter = Rewriter(model.graph, source)
        for position in (1, 2) if node.op_type == "Mul" else (2,):
            array = source.inputs[position].const_value.numpy()  # type: ignore[union-attr]
            changed = array * np.float32(number) if node.op_type == "Mul" else array + np.float32(number)
            source.replace_input_with(position, rewriter.constant(changed))
        ir.convenience.replace_all_uses_with(node.outputs[0], value, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        count += 1
    return count


def _attributes(node: ir.Node) -> dict[str, object]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def _merge_from(graph: ir.Graph, first: ir.Node) -> int:
    chain = [first]
    while True:
        readers = chain[-1].outputs[0].consumers()
        single = len(chain[-1].outputs[0].uses()) == 1 and not chain[-1].outputs[0].is_graph_output()
        if not single or not _is_movement(readers[0]):
            break
        chain.append(readers[0])
    # Back to channels first for an operator that computes: a convolution absorbs it too.
    if tuple(chain[-1].attributes.get_ints("perm", [])) == TO_FIRST:
        chain.pop()
    before = first.inputs[0].producer() if first.inputs[0] is not None else None
    if len(chain) < 2 or (_is_movement(before) and len(first.inputs[0].uses()) == 1):  # type: ignore[union-attr]
        return 0
    source, output = first.inputs[0], chain[-1].outputs[0]
    shape = static_shape(source)
    assert shape is not None
    plan = _plan(shape, [(node, static_shape(node.outputs[0]) or ()) for node in chain])
    if plan is None or source is None:
        return 0
    split, perm = plan
    steps = (split != shape) + (perm != tuple(range(len(perm)))) + 1
    if steps >= len(chain):
        return 0
    rewriter, value = Rewriter(graph, chain[-1]), source
    if perm != tuple(range(len(perm))):
        if split != shape:
            value = rewriter.add("Reshape", [value, rewriter.constant(np.array(split, np.int64))])
            value.shape = ir.Shape(split)
        value = rewriter.add("Transpose", [value], perm=list(perm))
        value.shape = ir.Shape([split[axis] for axis in perm])
    result = static_shape(output) or ()
    value = rewriter.add("Reshape", [value, rewriter.constant(np.array(result, np.int64))])
    rewriter.replace(output, value)
    for node in reversed(chain):
        graph.remove(node, safe=True)
    return len(chain) - steps


def _plan(
    shape: tuple[int, ...], chain: Sequence[tuple[ir.Node, tuple[int, ...]]]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The chain as one reshape to `split`, one transposition and one reshape to the last shape.

    Every axis is followed as a product of atoms; a reshape may split an atom in two.
    """
    atoms = _Atoms(shape)
    dims = [[index] for index in range(len(shape))]
    for node, result in chain:
        if node.op_type == "Transpose":
            perm = list(node.attributes.get_ints("perm", range(len(dims))[::-1]))
            dims = [dims[axis] for axis in perm]
        else:
            regrouped = atoms.regroup(dims, result)
            if regrouped is None:
                return None
            dims = regrouped
    source = [leaf for index in range(len(shape)) for leaf in atoms.leaves(index)]
    target = [leaf for dim in dims for index in dim for leaf in atoms.leaves(index)]
    # Atoms that stay neighbours are one axis.
    groups: list[list[int]] = []
    position = {leaf: i for i, leaf in enumerate(target)}
    for leaf in source:
        if groups and position[groups[-1][-1]] + 1 == position[leaf]:
            groups[-1].append(leaf)
        else:
            groups.append([leaf])
    order = sorted(range(len(groups)), key=lambda i: position[groups[i][0]])
    return tuple(math.prod(atoms.sizes[leaf] for leaf in group) for group in groups), tuple(order)


class _Atoms:
    """Sizes of axes that may be split into an outer and an inner part."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.sizes = list(shape)
        self._parts: dict[int, tuple[int, int]] = {}

    def leaves(self, index: int) -> list[int]:
        if index not in self._parts:
            return [index]
        outer, inner = self._parts[index]
        return self.leaves(outer) + self.leaves(inner)

    def split(self, index: int, inner: int) -> tuple[int, int]:
        self.sizes += [self.sizes[index] // inner, inner]
        self._parts[index] = (len(self.sizes) - 2, len(self.sizes) - 1)
        return self._parts[index]

    def regroup(self, dims: Sequence[Sequence[int]], shape: Sequence[int]) -> list[list[int]] | None:
        """The same data as `shape`, or None where an axis would be cut at no divisor."""
        pending = [leaf for dim in dims for index in dim for leaf in self.leaves(index)][::-1]
        result: list[list[int]] = []
        for size in shape:
            group: list[int] = []
            wanted = size
            while wanted > 1:
                leaf = pending.pop()
                if self.sizes[leaf] == 1:
                    group.append(leaf)
                elif wanted % self.sizes[leaf] == 0:
                    wanted //= self.sizes[leaf]
                    group.append(leaf)
                elif self.sizes[leaf] % wanted == 0:
                    outer, inner = self.split(leaf, self.sizes[leaf] // wanted)
                    pending.append(inner)
                    group.append(outer)
                    wanted = 1
                else:
                    return None
            result.append(group)
        if not result or any(self.sizes[leaf] != 1 for leaf in pending):
            return None
        result[-1] += pending[::-1]
        return result
