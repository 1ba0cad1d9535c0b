"""The programs on the command line: arguments, ends and messages."""
