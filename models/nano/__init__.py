"""The small trained model that ships with rap-edge."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "weights"
"""Folder of its checkpoint."""
