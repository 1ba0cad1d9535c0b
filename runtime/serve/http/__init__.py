"""Connections and requests: who is let in, how many, and what may be asked."""
