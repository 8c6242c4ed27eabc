"""Processes of their own for tests, forked from one that has imported what takes seconds: torch and Lightning."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from known import known

PRELOADED = ["blemish.engine.engine", "blemish.runtime.torch_session", "blemish.cli"]

COMMAND = "from blemish.cli import main; main()"
"""`blemish` itself, as a program for `Script`."""

warm = multiprocessing.get_context("forkserver")
warm.set_forkserver_preload(PRELOADED)


class Script:
    """`python -c CODE WORDS`, much as `subprocess.Popen(text=True)` runs it with pipes.

    Args:
        code: a program; its `__name__` is "__main__".
        words: its arguments.
        more: of the environment.
        folder: where it runs; None for where the caller does.
        log: a file that gets what it writes to stderr; None for a pipe.
    """

    def __init__(
        self,
        code: str,
        *words: object,
        more: Mapping[str, str] | None = None,
        folder: Path | None = None,
        log: Path | None = None,
    ) -> None:
        pipes = [warm.Pipe(duplex=False) for _ in range(2)]
        job = code, ("-c", *map(str, words)), {**os.environ, **(more or {})}, folder, log
        self._process = warm.Process(target=_run, args=(*job, [write for _, write in pipes]))
        self._process.start()
        for _, write in pipes:
            write.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(read.fileno()), encoding="utf-8") for read, _ in pipes)
        for read, _ in pipes:
            read.close()

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills it, if it still runs."""
        self._process.kill()
        self._process.join()
        self.stdout.close()
        self.stderr.close()

    @property
    def pid(self) -> int:
        """Of the system."""
        return known(self._process.pid)

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit code, once it has ended: minus the number of the signal that killed it."""
        return self._process.exitcode

    def wait(self, seconds: float) -> tuple[int | None, str]:
        """Its exit code and what it wrote to stderr, which must be little."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, "it didn't end in time"
        return self._process.exitcode, self.stderr.read()


def two(code: str, *words: object) -> list[tuple[int | None, str]]:
    """Exit codes and stderr of two processes that work together, told their ranks as Lightning tells them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    first, second = (Script(code, *words, more={**job, "LOCAL_RANK": rank}) for rank in "01")
    with first, second:
        return [process.wait(180) for process in (first, second)]


def _run(
    code: str,
    words: tuple[str, ...],
    environment: dict[str, str],
    folder: Path | None,
    log: Path | None,
    outputs: list[Connection],
) -> None:
    for number, output in enumerate(outputs, start=1):
        os.dup2(output.fileno(), number)
        output.close()
    if log is not None:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 2)
    if folder is not None:
        os.chdir(folder)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.argv[:] = words
    os.environ.clear()
    os.environ.update(environment)
    exec(compile(code, "<test>", "exec"), {"__name__": "__main__"})
