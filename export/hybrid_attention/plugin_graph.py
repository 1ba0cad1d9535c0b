"""A graph whose hybrid attentions TensorRT's parser takes for plugins.

The parser prefers an operator's definition to a plugin, so the definition has to go, and the nodes have to name the
plugin's namespace and that its kernel is compiled ahead of time.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from .operator import DOMAIN, OP_TYPE


def plugin_graph(file: Path) -> bytes:
    """The model in `file` with plugins in it, serialised; its weights stay in their own files."""
    model = onnx.load(file, load_external_data=False)
    kept = [function for function in model.functions if (function.domain, function.name) != (DOMAIN, OP_TYPE)]
    del model.functions[:]
    model.functions.extend(kept)
    for node in model.graph.node:
        if (node.domain, node.op_type) == (DOMAIN, OP_TYPE):
            node.attribute.append(onnx.helper.make_attribute("plugin_namespace", DOMAIN))
            node.attribute.append(onnx.helper.make_attribute("aot", 1))
    serialized: bytes = model.SerializeToString()
    return serialized
