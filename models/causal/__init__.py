"""Networks that make video latent by latent, over what they keep of their past."""
