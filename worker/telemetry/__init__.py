"""Traces, metrics and logs: names, instruments, propagation, export."""
