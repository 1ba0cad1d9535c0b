"""Programs that are run on a GPU, one thing each; `on_a_gpu.py` runs them and writes the page."""
