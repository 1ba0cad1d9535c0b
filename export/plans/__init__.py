"""Plans of TensorRT: chosen, built, and believed only when the plan itself says so."""
