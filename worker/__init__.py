"""A streaming moderation worker: conversation events in, one verdict each out, exactly once."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("moderation-worker")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0.0.0"
