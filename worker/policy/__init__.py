"""Policies: what is judged on which topic, and what follows from it."""
