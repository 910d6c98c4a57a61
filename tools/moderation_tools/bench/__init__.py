"""Benchmarks: what each part costs, as printed figures."""
