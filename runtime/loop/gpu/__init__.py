"""The chunk loop on a GPU: everything between two engines in kernels, the whole chunk as one CUDA graph."""
