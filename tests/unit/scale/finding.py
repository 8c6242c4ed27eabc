"""What tests of several processes share: the command line here, and worker processes by what they do."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from blemish.cli import main


class Reports:
    """A web server that counts what is sent to it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.received.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.environment = {
            "RAY_USAGE_STATS_REPORT_URL": f"http://127.0.0.1:{self.server.server_port}",
            "RAY_USAGE_STATS_REPORT_INTERVAL_S": "1",
        }

    def __enter__(self) -> Reports:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def run(*arguments: object, code: int = 0) -> tuple[str, str]:
    """What the command line says on stdout and on stderr."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["blemish", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        ended: object = 0
        try:
            main()
        except SystemExit as error:
            ended = error.code or 0
    assert ended == code, err.getvalue()
    out.seek(0)
    return out.read(), err.getvalue()


def workers_of(ray: Any, function: str) -> Iterator[int]:
    """Processes of this machine that work on a task of this cluster."""
    session = Path(ray._private.worker._global_node.get_session_dir_path()).name
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                title = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                raylet = Path(f"/proc/{(process / 'stat').read_text().rpartition(')')[2].split()[1]}/cmdline")
                ours = session in raylet.read_text()
            except OSError:
                continue
            if title.startswith(f"ray::{function}") and ours:
                yield int(process.name)
