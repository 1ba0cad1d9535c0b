"""Passes for fp16 graphs, which TensorRT runs; those beside this folder are for ONNX Runtime on a CPU."""
