"""Many boxes and many clips, on Ray: `rap-fleet`."""
