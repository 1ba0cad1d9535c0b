"""What a run was like, as figures."""
