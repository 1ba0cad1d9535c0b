"""The networks in PyTorch and the readers of published checkpoints."""
