"""What `rap-export` does beside exporting: each a word after its name."""
