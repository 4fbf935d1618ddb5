"""Free TCP ports on loopback."""

import random
import socket
from collections import deque

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes the port before its server does.
LOWEST, HIGHEST = 20000, 31999

_given: deque[int] = deque(maxlen=4096)  # of this process: what was given out may not be listened on yet


def free_port() -> int:
    """Give a port that nobody listens on at 127.0.0.1 just now."""
    picks = random.SystemRandom()
    while True:
        port = picks.randint(LOWEST, HIGHEST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.append(port)
        return port
