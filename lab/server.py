"""A server program on a free loopback port, with a directory of its own: what our mosquitto and our PostgreSQL have in common."""

import shutil
import signal
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from lab.ports import free_port
from lab.process import Program, ProgramEnded

TRIES = 5  # ports, where one after the other is taken by another between its being found free and the server's start


class Server(ABC):
    """kill() and start() again give the same port and directory; close() ends both. `name` is that of directory and log."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._program: Program | None = None
        self.host = "127.0.0.1"
        self.port = 0
        self.directory = Path()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it and wait until it serves. Raises ProgramEnded, NotReady; after that, the first time, nothing is left."""
        if self.port:
            self._run()
            return
        self.directory = Path(tempfile.mkdtemp(prefix=f"eva-{self._name}-"))
        try:
            self._run_on_a_free_port()
        except BaseException:  # also KeyboardInterrupt: the program and its directory would stay
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Give its pid, for SIGSTOP and SIGCONT."""
        assert self._program is not None  # noqa: S101 - start() came first
        return self._program.pid

    @property
    def log(self) -> str:
        """Give what it logged over all its runs."""
        return self._log.read_text()

    def stop(self) -> None:
        """Stop it in order, whoever is connected. It can be started again."""
        if self._program is not None:
            self._program.close()
            self._program = None

    def kill(self) -> None:
        """End it by SIGKILL. It can be started again."""
        if self._program is not None:
            self._program.kill()
            self._program.close()
            self._program = None

    def close(self) -> None:
        """Stop it for good, frozen or not, and remove its directory."""
        if self._program is not None:
            self._program.signal(signal.SIGCONT)
        self.stop()
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory, self.port = Path(), 0

    @abstractmethod
    def _run(self) -> None:
        """Start `_program` on `port` and wait until it serves; first lay out `directory`. Raises ProgramEnded, NotReady."""

    @property
    def _log(self) -> Path:
        return self.directory / f"{self._name}.log"

    def _run_on_a_free_port(self) -> None:
        for left in reversed(range(TRIES)):
            self.port = free_port()
            try:
                self._run()
            except ProgramEnded as error:
                if not left or "Address already in use" not in error.output:
                    raise
                self.kill()
            else:
                return
