"""torch -> ONNX graphs, precision, parity check, and rap-export."""
