"""What a plan really does, held against what its graph claims."""
