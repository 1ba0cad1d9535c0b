"""The second small model: motion latents over a portrait that is warped, causal from the sound to the picture."""
