"""The demonstration: scripted conversations through the real worker, on this machine alone."""
