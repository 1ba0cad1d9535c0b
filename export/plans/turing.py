"""What Turing (compute capability 7.5) needs of a network: TensorRT-RTX has no float32 matrix product for it.

The only float32 products of our graphs are those of one row, in the timestep embedding. A product of a row and a matrix
is a multiplication and a sum, which every GPU has, and reads the weights once either way.
"""

from __future__ import annotations

from typing import Any


def rows_without_products(network: Any, module: Any) -> int:
    """Replace float32 matrix products whose left side is one row, in place; returns how many.

    Args:
        network: an `INetworkDefinition`.
        module: the TensorRT module that made it.
    """
    readers: dict[str, list[tuple[Any, int]]] = {}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    for layer in layers:
        for index in range(layer.num_inputs):
            tensor = layer.get_input(index)
            if tensor is not None:
                readers.setdefault(tensor.name, []).append((layer, index))
    count = 0
    for layer in layers:
        if layer.type.name == "MATRIX_MULTIPLY" and _is_row_product(layer, module):
            result = _multiply_and_sum(network, layer, module)
            for reader, index in readers.get(layer.get_output(0).name, []):
                reader.set_input(index, result)
            count += 1
    return count


def _is_row_product(layer: Any, module: Any) -> bool:
    layer.__class__ = module.IMatrixMultiplyLayer
    row, matrix = layer.get_input(0), layer.get_input(1)
    plain = layer.op0 == module.MatrixOperation.NONE and layer.op1 != module.MatrixOperation.VECTOR
    return bool(
        plain
        and row.dtype == module.DataType.FLOAT
        and len(row.shape) == len(matrix.shape) == 2
        and row.shape[0] == 1
        and layer.get_output(0).name
        and not layer.get_output(0).is_network_output
    )


def _multiply_and_sum(network: Any, layer: Any, module: Any) -> Any:
    row, matrix = layer.get_input(0), layer.get_input(1)
    transposed = layer.op1 == module.MatrixOperation.TRANSPOSE
    width = row.shape[1]
    spread = network.add_shuffle(row)
    spread.reshape_dims = (1, width) if transposed else (width, 1)
    product = network.add_elementwise(spread.get_output(0), matrix, module.ElementWiseOperation.PROD)
    total = network.add_reduce(product.get_output(0), module.ReduceOperation.SUM, 2 if transposed else 1, False)
    result = network.add_shuffle(total.get_output(0))
    result.reshape_dims = tuple(layer.get_output(0).shape)
    for part, name in ((spread, "row"), (product, "product"), (total, "sum"), (result, "result")):
        part.name, part.metadata = f"{layer.name}:{name}", layer.metadata
    return result.get_output(0)
