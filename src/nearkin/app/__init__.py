"""The command line: one file a command, and how its words are read."""
