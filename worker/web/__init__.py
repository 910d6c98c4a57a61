"""Pages of the worker's own web server, each a pure function of a snapshot."""
