"""8 bits in graphs: Q/DQ, smoothing, and graphs with chosen layers quantised."""
