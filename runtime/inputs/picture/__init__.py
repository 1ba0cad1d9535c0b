"""What comes in as a picture: the portrait, decoded with little trust."""
