"""How nano is trained."""
