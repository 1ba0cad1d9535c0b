"""Measures of talking faces, from their frames alone."""
