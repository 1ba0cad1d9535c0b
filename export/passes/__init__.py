"""Graph passes: each keeps what a graph computes and changes how."""
