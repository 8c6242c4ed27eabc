"""The process: a socket, a log, and uvicorn around the application."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import uvicorn

from blemish.errors import UsageError
from blemish.escaping import as_utf8, json_line
from blemish.serve.api import create_app
from blemish.serve.configuration import StationSettings
from blemish.serve.history import iso
from blemish.serve.pages.site import add_pages
from blemish.serve.station import Station

GRACE = 20
"""Seconds that open requests have to end when the station stops."""


class JsonLines(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        content = {
            "time": iso(int(record.created * 1e6)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json_line(as_utf8(content))


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Structured logs of a station, one JSON object per line, while the block runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root, ours = logging.getLogger(), logging.getLogger("blemish")
    before = root.handlers, root.level, ours.level
    root.handlers = [handler]
    logging.captureWarnings(True)  # they are lines of the log as well
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(settings: StationSettings) -> socket.socket:
    """The socket to listen on.

    Raises:
        UsageError: if the address can't be used.
    """
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
    except OSError as error:
        raise UsageError(
            f"The station can't listen on {settings.host}:{settings.port}: {error.strerror}. Choose another --port."
        ) from error
    return listening


def check_exposure(station: Station) -> None:
    """Refuses that everybody can reach a station that asks for no login.

    Raises:
        UsageError: if it would be so, and the settings don't say that it shall.
    """
    host = station.settings.host
    if not is_loopback(host) and not station.accounts.any and not station.settings.insecure:
        raise UsageError(
            f"host {host} is reached from other machines, and nobody has an account. Start on 127.0.0.1 first and make "
            f"the admin by the link that is printed, or say --insecure if everybody there is trusted."
        )


def serve(settings: StationSettings) -> None:
    """Runs a station until it is told to stop, by a signal.

    Raises:
        BlemishError: for the first thing that would not work.
    """
    listening = listen(settings)
    station = Station(settings)
    check_exposure(station)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"{'http' if settings.cert is None else 'https'}://{shown}:{port}"
    print(f"The station is at {address}", flush=True)
    if station.accounts.setup_key is not None:
        print(f"Make its admin, once, at {address}/setup?key={station.accounts.setup_key}", flush=True)
    app = create_app(station)
    add_pages(app, station)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        ssl_certfile=settings.cert,
        ssl_keyfile=settings.key,
    )
    _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends by returning: uvicorn's own raises the signal again when it has shut down."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
