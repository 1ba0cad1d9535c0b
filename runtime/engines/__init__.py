"""One graph on one backend: an interface of three verbs, and a file per backend."""
