"""Debian's mosquitto on a free loopback port."""

import os
import pwd
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Self

from lab.ports import free_port
from lab.process import Program, ProgramEnded

PLAIN = """
listener @PORT@ 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
"""

PERSISTENT = """
persistence true
persistence_location @DIRECTORY@/
autosave_interval 1
"""


class Mosquitto:
    """One MQTT broker with a directory of its own.

    `config` is the text of a mosquitto.conf in which @PORT@ and @DIRECTORY@ stand for what is chosen here; PLAIN listens
    without TLS and lets everyone in. kill() and start() again give the same port and, with PERSISTENT, the same store.
    """

    def __init__(self, config: str = PLAIN) -> None:
        self._config = config
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
        """Start it and wait until it accepts. Raises ProgramEnded with mosquitto's own words."""
        if self.port:
            self._run()
            return
        self.directory = Path(tempfile.mkdtemp(prefix="eva-mqtt-"))
        for attempt in range(5):
            self.port = free_port()
            try:
                self._run()
            except ProgramEnded as error:
                # Another may have taken the port since it was found free.
                if attempt == 4 or "Address already in use" not in error.output:
                    self.close()
                    raise
            else:
                return

    @property
    def pid(self) -> int:
        """Give its pid, for SIGSTOP and SIGCONT."""
        assert self._program is not None  # noqa: S101 - start() came first
        return self._program.pid

    @property
    def log(self) -> str:
        """Give what it logged over all its runs."""
        return (self.directory / "mosquitto.log").read_text()

    def reload(self) -> None:
        """Let it read its password and ACL files again (SIGHUP)."""
        assert self._program is not None  # noqa: S101 - start() came first
        self._program.signal(signal.SIGHUP)

    def stop(self) -> None:
        """Stop it in order: a persistent store is written. It can be started again."""
        if self._program is not None:
            self._program.stop()

    def kill(self) -> None:
        """End it by SIGKILL. It can be started again."""
        if self._program is not None:
            self._program.kill()

    def close(self) -> None:
        """Stop it for good and remove its directory."""
        if self._program is not None:
            self._program.signal(signal.SIGCONT)
            self.stop()
        if self.port:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.port = 0

    def _run(self) -> None:
        config = self._config.replace("@PORT@", str(self.port)).replace("@DIRECTORY@", str(self.directory))
        # As root it would become Debian's user mosquitto, who cannot read keys in a test's own directory.
        config += f"\nuser {pwd.getpwuid(os.geteuid()).pw_name}\nlog_dest stderr\n"
        path = self.directory / "mosquitto.conf"
        path.write_text(config)
        # Debian puts it in /usr/sbin, which is not on every user's PATH.
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") or "mosquitto"
        self._program = Program([program, "-c", str(path)], self.directory / "mosquitto.log")
        self._program.start()
        self._await_port()

    def _await_port(self, timeout: float = 10.0) -> None:
        program = self._program
        assert program is not None  # noqa: S101 - _run() has set it
        deadline = time.monotonic() + timeout
        while True:
            running = program.running
            if not running or time.monotonic() > deadline:
                program.kill()
                raise ProgramEnded(program.argv, program.returncode, program.transcript.tail())
            with socket.socket() as probe:
                if probe.connect_ex((self.host, self.port)) == 0 and program.running:
                    return
            time.sleep(0.005)  # a port that is not open yet cannot be awaited
