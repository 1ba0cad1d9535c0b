"""Half precision as a property of the graph."""
