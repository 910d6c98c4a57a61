"""``run``: the worker itself, until a signal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from worker.cli.options import config_option
from worker.settings import load_settings


@click.command()
@config_option
def run(config: Path | None) -> None:
    """Run the worker: read events, judge them, publish one verdict each.

    SIGTERM and Ctrl-C drain within stream.drain_s and exit with code 0. Code 2: settings or
    policies are to be corrected. Every other code means that the process should be started again: 1
    after a fatal error, 71 when the watchdog ended a batch that never came back. Nothing that was
    read is lost either way.
    """
    # Until Faust listens for signals, nothing has begun that would have to be finished.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    load_settings(config)
    if config is not None:
        os.environ["MODERATION_CONFIG"] = str(config.absolute())
    from worker.app import app

    app.Worker().execute_from_commandline()
