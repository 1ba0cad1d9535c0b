"""Training of the small model whose latents are motion over a portrait, causal from the sound to the picture."""
