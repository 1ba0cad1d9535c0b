"""Readers and writers of checkpoints: which layout a folder has, and its tensors."""
