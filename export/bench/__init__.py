"""The same chunk loop on several backends, side by side."""
