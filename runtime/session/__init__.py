"""One viewer's stream: samples become chunks, in turn and in time."""
