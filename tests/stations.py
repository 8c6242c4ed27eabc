"""Stations to talk to: in this process, or as the command that people run."""

from __future__ import annotations

import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
import yaml

from blemish.serve.api import create_app
from blemish.serve.configuration import station_settings
from blemish.serve.server import listen
from blemish.serve.station import Station
from processes import COMMAND, Script


@contextmanager
def running(**values: Any) -> Iterator[tuple[Station, httpx.Client]]:
    """A station in this process, behind a real socket, and a client of it."""
    settings = station_settings({"port": 0, **values})
    listening = listen(settings)
    station = Station(settings)
    server = uvicorn.Server(uvicorn.Config(create_app(station), log_config=None, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=60) as client:
            until(lambda: server.started)
            yield station, client
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


class Process:
    """`blemish serve` as its own process."""

    def __init__(self, folder: Path, *arguments: str, verify: ssl.SSLContext | bool = True, **values: Any) -> None:
        folder.mkdir(exist_ok=True)
        if values:
            (folder / "station.yaml").write_text(yaml.safe_dump({"port": 0, **values}))
            arguments = ("--config", "station.yaml", *arguments)
        self.log = folder / "log.txt"
        self.process = Script(COMMAND, "serve", *arguments, folder=folder, log=self.log)
        self.first_line = self.process.stdout.readline()
        self.client = httpx.Client(
            base_url=self.first_line.rpartition(" ")[2].strip() or "http://none", timeout=60, verify=verify
        )

    def __enter__(self) -> Process:
        until(lambda: self._answers(), 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """As the power does, or `kill -9`."""
        self.client.close()
        self.process.close()

    def stop(self) -> int | None:
        """As systemd does."""
        self.process.signal(signal.SIGTERM)
        code, _ = self.process.wait(60)
        self.client.close()
        return code


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Waits until something is so; fails if it isn't in time. Asks ever less often: answers take time from the work."""
    end, pause = time.monotonic() + seconds, 0.02
    while not condition():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(pause)
        pause = min(1.1 * pause, 0.3)


def drop(folder: Path, name: str, content: bytes) -> None:
    """A picture that appears at once."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(content)
    os.replace(hidden, path)
