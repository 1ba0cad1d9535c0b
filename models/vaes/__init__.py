"""The autoencoders between frames and latents, one family a file, behind one interface."""
