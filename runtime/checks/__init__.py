"""What comes from outside is checked here before anything else sees it."""
