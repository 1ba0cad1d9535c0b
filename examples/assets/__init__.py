"""The demo's portrait and speech, which are installed as `rap_edge.assets`: every export is checked with them."""
