"""Precision that provably wins: records the live loop, places Q/DQ, measures, and proves it on the roll-out."""
