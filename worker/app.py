"""The Faust app: process life, signals and web pages around ``WorkerService``.

Faust consumes nothing here (its commit logic loses records, see docs/decisions): it is the shell
that starts one service, serves its pages and turns SIGTERM into a drain. ``faust -A worker.app
worker`` and ``moderation-worker run`` are the same thing; settings come from the file that
``MODERATION_CONFIG`` names, and from ``MODERATION_*`` variables.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import faust
from faust.app.base import BootStrategy
from mode import Service

from worker.concurrency import asked_to_cancel
from worker.errors import ConfigurationError, FatalError, WorkerError
from worker.service import WorkerService
from worker.settings import Settings, load_settings
from worker.telemetry.logs import configure_logging, say
from worker.telemetry.redact import publish_settings
from worker.web.server import WebServer

CONFIG_VARIABLE = "MODERATION_CONFIG"

logger = logging.getLogger(__name__)
_ended_by: list[BaseException] = []
"""What ended this process; told when everything else has been said."""


def settings_of_environment() -> Settings:
    """The settings of this process."""
    named = os.environ.get(CONFIG_VARIABLE)
    return load_settings(Path(named) if named else None)


def _told(error: BaseException) -> str:
    """An error in the words of the worker; the text of any other may quote what it failed on."""
    if isinstance(error, WorkerError):
        return str(error)
    return f"a fault of the worker ({type(error).__name__}); the log says where"


class ShellOnly(BootStrategy):  # type: ignore[misc]
    """Web and services, without Faust's own consumer and producer."""

    enable_kafka = False


class ShellWorker(faust.Worker):  # type: ignore[misc]
    """Faust's worker, quiet, whose process ends when it has ended."""

    def __init__(self, app: faust.App, **options: Any) -> None:
        options |= {"quiet": True, "redirect_stdouts": False, "override_logging": False}
        super().__init__(app, **options)
        self.spinner = None  # it writes cursor codes into what is read by machines

    def execute_from_commandline(self) -> NoReturn:
        """Run until a signal or a fatal error, whose message is the last line of the output.

        Everything is closed by then; but a thread that still loads a model cannot be told to stop,
        and Python would wait for it, for minutes.
        """
        try:
            super().execute_from_commandline()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            if code and _ended_by:
                say(f"error: {_told(_ended_by[0])}")
                code = 2 if isinstance(_ended_by[0], ConfigurationError) else code
            logging.shutdown()  # within seconds, though nobody reads what is written
            sys.stdout.flush()
            os._exit(code)
        raise AssertionError("Faust always ends with SystemExit")


class ModerationApp(faust.App):  # type: ignore[misc]
    """Faust without its streams."""

    BootStrategy = ShellOnly


def make_app(settings: Settings) -> ModerationApp:
    """The Faust app of these settings, without its service and pages."""
    return ModerationApp(
        settings.kafka.client_id,
        broker="kafka://unused",
        store="memory://",
        datadir=str(Path(tempfile.gettempdir()) / "moderation-worker"),
        web_enabled=False,  # the pages have a server of their own: worker/web/server.py
        topic_disable_leader=True,
        Worker=ShellWorker,
    )


try:
    settings = settings_of_environment()
    moderation = WorkerService(settings)
except ConfigurationError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    raise SystemExit(2) from error
app = make_app(settings)


@app.service
class Moderation(Service):  # type: ignore[misc]
    """The worker as Faust runs it: until a signal stops it, or an error ends the process."""

    async def on_start(self) -> None:
        configure_logging(settings.telemetry)
        publish_settings(settings)
        self._pages = WebServer(moderation, settings.web)
        try:
            await self._pages.start()
        except ConfigurationError as error:
            _ended_by.append(error)
            raise
        logger.info("pages on %s, port %d", settings.web.host, self._pages.port)

    @Service.task  # type: ignore[untyped-decorator]
    async def judge_events(self) -> None:
        """Run until a signal; an error ends the process: code 2 for settings, else 1."""
        try:
            await moderation.run()
        except asyncio.CancelledError as error:
            if not asked_to_cancel():
                # Faust takes it for an end that was asked for, and would stay up without a stream.
                _ended_by.append(FatalError("the worker was cancelled from within"))
                raise _ended_by[-1] from error
            raise
        except Exception as error:
            _ended_by.append(error)
            raise

    async def on_stop(self) -> None:
        await moderation.stop()
        await self._pages.stop()
