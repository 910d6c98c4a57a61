"""A streaming moderation worker: conversation events in, one verdict each out, exactly once."""

__version__ = "0.1.0"
"""The one place of the version: both distributions, the chart and the image are held to it."""
