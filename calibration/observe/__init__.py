"""What the activations of the layers look like."""
