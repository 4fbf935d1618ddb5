"""Free TCP ports on loopback."""

import random
import socket

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes the port before its server does.
LOWEST, HIGHEST = 20000, 31999

# What was given out may not be listened on yet, or just not now. An abstract UNIX socket (unix(7)) of the port's name keeps
# it from the test runs beside this one, in the same network namespace as the port is, and is gone with this process.
_kept: list[socket.socket] = []


def free_port() -> int:
    """Give a port that nobody listens on at 127.0.0.1 just now, and that this process has from now on."""
    picks = random.SystemRandom()
    while not claim(port := picks.randint(LOWEST, HIGHEST)):
        pass
    return port


def claim(port: int) -> bool:
    """Take this port if nobody listens on it and nobody has it."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0eva-port-{port}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        name.close()
        return False
    _kept.append(name)
    return True
