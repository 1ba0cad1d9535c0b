"""What can run here, and the command that mends what cannot."""
