"""Visitors over many boxes: a dispatcher on Ray Serve hands out the places of `rap-serve` processes that actors own."""
