"""What this machine has and may use: processor, memory, containers, GPUs and their libraries."""
