"""rap-edge: real-time audio-driven portrait models on edge boxes."""
