"""Many clips: a file of jobs to videos, on any number of boxes."""
