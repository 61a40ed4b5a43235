"""The command line: a file for each command, and what all share. Nothing is done here, only asked for and shown."""
