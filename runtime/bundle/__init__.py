"""What is on disk: the manifest, the graph contract, the golden clip, and files that appear whole or not at all."""
