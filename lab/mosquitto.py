"""Debian's mosquitto on a free loopback port."""

import os
import pwd
import shutil
import signal

from lab.process import Program
from lab.server import Server

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


class Mosquitto(Server):
    """One MQTT broker with a directory of its own.

    `config` is the text of a mosquitto.conf in which @PORT@ and @DIRECTORY@ stand for what is chosen here; PLAIN listens
    without TLS and lets everyone in. kill() and start() again give the same port and, with PERSISTENT, the same store.
    """

    def __init__(self, config: str = PLAIN) -> None:
        super().__init__("mosquitto")
        self._config = config

    def reload(self) -> None:
        """Let it read its password and ACL files again (SIGHUP)."""
        assert self._program is not None  # noqa: S101 - start() came first
        self._program.signal(signal.SIGHUP)

    def _run(self) -> None:
        config = self._config.replace("@PORT@", str(self.port)).replace("@DIRECTORY@", str(self.directory))
        # As root it would become Debian's user mosquitto, who cannot read keys in a test's own directory.
        config += f"\nuser {pwd.getpwuid(os.geteuid()).pw_name}\nlog_dest stderr\n"
        path = self.directory / "mosquitto.conf"
        path.write_text(config)
        # Debian puts it in /usr/sbin, which is not on every user's PATH.
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin") or "mosquitto"
        # Debian builds it with systemd's notification; a port that can be connected to might be another's
        self._program = Program([program, "-c", str(path)], self._log, notify=True)
        self._program.start()
        self._program.wait_notified("READY=1")
