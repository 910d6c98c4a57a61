"""The log in a directory of this machine."""
