"""The name of RAP's hybrid attention in ONNX graphs and in TensorRT's registry of plugins."""

DOMAIN, OP_TYPE, VERSION = "rap", "HybridAttention", 1
