"""RAP's hybrid attention in ONNX graphs and in plans."""
