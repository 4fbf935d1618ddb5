"""`make demo`: a private cloud on loopback and the whole story on it; at a terminal you end in the guest's console.

Exit status: 0 the story came out as it must, 1 it did not (the step and the logs are told), 128 + n ended by signal n.
"""

import contextlib
import os
import signal
import sys
import tempfile
import termios
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from lab.cloud import SUBSCRIPTION, Cloud, CommandFailed
from lab.libvirt_host import LibvirtHost
from lab.rest import ADMINISTRATOR, TENANT
from lab.shell import Shell, StepFailed
from lab.story import NODE, PICTURE, Callers, Story
from lab.transcript import Transcript

VM = "vm1"
RESOURCE_ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg1/providers/Microsoft.Compute/virtualMachines/{VM}"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
LOG_LINES = 15


class Stage:
    """The private cloud that the story is told on. `stack` stops it; `logs` and `at` are for a failure's report."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._story: Story | None = None
        self.logs: list[Path] = []

    @property
    def at(self) -> str:
        """Give the step under way."""
        return self._story.at if self._story is not None else "Setting up"

    def set_up(self, directory: Path) -> Story:
        """Start all of it; `directory` is for what commands say. Raises what the lab's parts raise."""
        begun = time.monotonic()
        _say("== Setting up a private cloud on loopback")
        host = self._stack.enter_context(LibvirtHost())
        self.logs.append(host.directory / "libvirtd.log")
        _say(f"libvirtd runs, in {host.directory}; on it boots the guest {VM}, without a network card and without KVM")
        guest = host.start_guest(VM, resource_id=RESOURCE_ID, wait=False)
        self.logs.append(guest.serial.path)
        cloud = Cloud({"host1": host.uri}, subscriptions=())
        self._stack.callback(cloud.close)
        self.logs += [cloud.provider.transcript.path, cloud.directory / NODE / "broker.log"]
        _say(f"mosquitto, the provider and the node {NODE} start, in {cloud.directory}")
        cloud.start()
        _say(f"the platform makes {ADMINISTRATOR} its administrator and {TENANT} the owner of a subscription, and signs them in")
        cloud.assign(ADMINISTRATOR, "EVA Cloud Administrator")
        cloud.assign(TENANT, "Owner", f"/subscriptions/{SUBSCRIPTION}")
        callers = Callers(cloud.caller(ADMINISTRATOR, "admin"), cloud.caller(TENANT))
        _say("waiting for the guest's serial shell")
        guest.wait_ready()
        _say(f"ready, {time.monotonic() - begun:.0f} s; all of this is gone when the demo ends")
        _say("The commands lie in .venv/bin; the operator's find node and account by EVA_ERCS, EVA_ACCOUNT, EVA_PASSWORD_FILE.")
        _say("Each .curl file holds its owner's token, and the authority of the provider's certificate.")
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        self._story = Story(Shell(cloud.environment(NODE), directory), cloud, guest, callers, PICTURE)
        return self._story


def main() -> int:
    """Set up, tell, tidy up; give the exit status."""
    for number in SIGNALS:
        signal.signal(number, _leave)
    seated = sys.stdin.isatty() and sys.stdout.isatty()
    with _terminal_kept(seated), _own_temporary_directory() as directory, contextlib.ExitStack() as stack:
        stage = Stage(stack)
        try:
            story = stage.set_up(directory)
            if seated:
                story.seat()
            else:
                story.play()
        except BrokenPipeError:
            # Nobody reads us any more: nor does Python have to try at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:  # noqa: BLE001 - the demo's edge: whatever went wrong is told with its step and the logs
            _report(error, stage)
            return 1
        finally:
            _ignore_signals()
    return 0


def _report(error: Exception, stage: Stage) -> None:
    """Tell what went wrong, at which step, and the last lines of each log."""
    match error:
        case StepFailed():
            what, output = error.what, error.output
        case CommandFailed():
            what, output = f"a command ended with status {error.code}", error.output
        case _:
            what, output = type(error).__name__, "".join(traceback.format_exception(error))
    _say(f"\nFAILED at: {stage.at}: {what}")
    _say(output.rstrip())
    for log in stage.logs:
        _say(f"-- the end of {log}")
        _say(Transcript(log).tail(LOG_LINES))


def _say(text: str) -> None:
    print(text, flush=True)


def _leave(number: int, _: FrameType | None) -> None:
    # A second Ctrl+C must not cut short what the first one began.
    _ignore_signals()
    raise SystemExit(128 + number)


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _own_temporary_directory() -> Iterator[Path]:
    """One directory for all that this process makes, so that no end of it, however early, leaves any."""
    with tempfile.TemporaryDirectory(prefix="eva-demo-") as name:
        tempfile.tempdir = name
        yield Path(name)


@contextlib.contextmanager
def _terminal_kept(seated: bool) -> Iterator[None]:
    """Set the terminal back as it was, also when a command that had it was killed."""
    if not seated:
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # it hung up
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


if __name__ == "__main__":
    sys.exit(main())
