"""The words after `rap-fleet`, a module each, which holds a `COMMAND`: a new one is a file here."""
