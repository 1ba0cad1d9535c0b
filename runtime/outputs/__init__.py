"""What goes out: files, windows, loudspeakers and cameras, and the clock that keeps them in step."""
