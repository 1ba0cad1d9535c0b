"""Where what an export takes comes from: networks and portraits."""
