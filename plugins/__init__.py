"""The CUDA sources of the fused hybrid attention; `export` compiles them into plans."""
