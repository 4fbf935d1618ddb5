"""Commands as a person types them: shown behind a `$`, run as processes of their own, with their words shown below."""

import asyncio
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from lab.guest_image import ROOT
from lab.process import Program
from lab.transcript import LOOK_S, PATIENCE_S

BIN = Path(sys.executable).parent
INDENT = "    "
_CONTROL = re.compile(r"\r|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-Z\\^-~]")


class StepFailed(Exception):
    """A command or what it said is not as it must be: `what` was found, `output` is all that was said."""

    def __init__(self, what: str, output: str) -> None:
        super().__init__(what, output)
        self.what = what
        self.output = output


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said, line ends as a terminal shows them."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


class Running:
    """A command that goes on. Leaving the `with` ends it."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        source, self._typing = os.pipe()
        self._program = Program(words, log, environment=environment, stdin=source)
        try:
            self._program.start()
        except OSError:  # nobody gets the Running that would close it
            os.close(self._typing)
            raise
        finally:
            os.close(source)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()
        os.close(self._typing)

    @property
    def text(self) -> str:
        """Give all it said so far, on standard output and error."""
        # The guest may be cut in the middle of a line, and the command's own words then follow on it.
        return re.sub(r"(?<=[^\n])eva: ", r"\neva: ", _as_shown(self._program.transcript.content()))

    def type(self, text: str) -> None:
        """Put this on its standard input."""
        os.write(self._typing, text.encode())

    def wait_said(self, pattern: str, timeout: float = PATIENCE_S) -> re.Match[str]:
        """Block until it has said something that fits. Raises StepFailed."""
        deadline = time.monotonic() + timeout
        while True:
            running = self._program.running
            if found := re.search(pattern, self.text, re.MULTILINE):
                return found
            if not running or time.monotonic() > deadline:
                raise StepFailed(f"never said {pattern!r}", self.text)
            time.sleep(LOOK_S)  # a file cannot be awaited

    def wait_end(self, timeout: float = PATIENCE_S) -> int:
        """Block until it ends; give its status. Raises NotReady."""
        return asyncio.run(self._program.ended(timeout))


class Shell:
    """A place to type commands at. The project's own are found beside this Python, `directory` is for what they say."""

    def __init__(self, environment: Mapping[str, str], directory: Path) -> None:
        self.environment = dict(environment)
        self._directory = directory
        self._count = 0

    def heading(self, text: str) -> None:
        """Begin a paragraph."""
        print(f"\n== {text}", flush=True)

    def say(self, text: str) -> None:
        """Print a line of the teller's own."""
        print(text, flush=True)

    def show(self, text: str) -> None:
        """Print what a command said."""
        for line in text.splitlines():
            print(f"{INDENT}{line}".rstrip(), flush=True)

    def run(self, *words: str, typed: str = "", answered: str = "", expect: Sequence[int] = (0,)) -> Done:
        """Run a command to its end, with `typed` on its standard input. Raises StepFailed for a status not expected.

        `answered`: its input ends only when its output fits. A guest that gets no processor looks as if it had said all.
        """
        self._prompt(words, typed)
        found = self._answered(words, typed, answered) if answered else self._done(words, typed)
        self.show(found.out)
        self.show(found.err)
        if found.code not in expect:
            raise StepFailed(f"{words[0]} ended with status {found.code}", found.text)
        return found

    def _done(self, words: Sequence[str], typed: str = "") -> Done:
        done = subprocess.run(
            ["setpriv", "--pdeathsig=KILL", "--", *_found(words)],
            input=typed.encode(),
            capture_output=True,
            env=os.environ | self.environment,
            cwd=ROOT,
            timeout=2 * PATIENCE_S,
            check=False,
        )
        return Done(done.returncode, _as_shown(done.stdout), _as_shown(done.stderr))

    def _answered(self, words: Sequence[str], typed: str, answered: str) -> Done:
        argv = ["setpriv", "--pdeathsig=KILL", "--", *_found(words)]
        environment = os.environ | self.environment
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=err, env=environment, cwd=ROOT) as command:
                source = command.stdin
                assert source is not None  # noqa: S101 - a pipe
                with contextlib.suppress(BrokenPipeError):  # it has ended, and its status says why
                    source.write(typed.encode())
                    source.flush()
                deadline = time.monotonic() + PATIENCE_S
                while command.poll() is None and time.monotonic() < deadline and not re.search(answered, _content(out)):
                    time.sleep(LOOK_S)  # a file cannot be awaited
                with contextlib.suppress(BrokenPipeError):
                    source.close()
                command.wait(2 * PATIENCE_S)
            return Done(command.returncode, _content(out), _content(err))

    def ask(
        self, *words: str, members: Sequence[str] = (), until: Callable[[dict[str, Any]], object] = lambda _: True
    ) -> dict[str, Any]:
        """Run a command that says a JSON object or nothing, again and again `until` it fits; show the last, indented.

        `members`: show only these of it. Raises StepFailed.
        """
        self._prompt(words)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            done = self._done(words)
            found = _answer(done) if done.code == 0 else {}
            fits = done.code == 0 and until(found)
            if done.code != 0 or fits or time.monotonic() > deadline:
                break
            time.sleep(LOOK_S)  # what it asks cannot be awaited
        told = {name: found[name] for name in members if name in found} if members else found
        self.show(json.dumps(told, indent=2) if told else done.out)
        self.show(done.err)
        if done.code != 0:
            raise StepFailed(f"{words[0]} ended with status {done.code}", done.text)
        if not fits:
            raise StepFailed("the answer did not become what it must", done.text)
        return found

    def start(self, *words: str) -> Running:
        """Start a command and let it run on, its standard input open."""
        self._prompt((*words, "&"))
        self._count += 1
        return Running(_found(words), self.environment, self._directory / f"command-{self._count}.log")

    def sit(self, *words: str) -> int:
        """Let a command have the terminal; give its status."""
        self._prompt(words)
        command = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "--", *_found(words)], env=os.environ | self.environment, cwd=ROOT
        )
        try:
            return command.wait()
        finally:
            if command.poll() is None:
                # It sets the terminal right on TERM.
                command.terminate()
                try:
                    command.wait(3)
                except subprocess.TimeoutExpired:
                    command.kill()
                    command.wait()

    def _prompt(self, words: Sequence[str], typed: str = "") -> None:
        piped = f"printf {shlex.quote(typed).replace(chr(10), chr(92) + 'n')} | " if typed else ""
        self.say(f"$ {piped}{shown(words)}")


def _content(file: IO[bytes]) -> str:
    return _as_shown(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0))


def _answer(done: Done) -> dict[str, Any]:
    """Raises StepFailed."""
    try:
        found = json.loads(done.out or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StepFailed("the answer is no JSON object", done.text)
    return found


def shown(words: Sequence[str]) -> str:
    """Give a command as one types it in the project's folder."""
    line = " ".join(word if word == "&" else shlex.quote(word) for word in words)
    return line.replace(f"{ROOT}/", "")


def _found(words: Sequence[str]) -> list[str]:
    program = BIN / words[0]
    return [str(program) if program.exists() else words[0], *words[1:]]


def _as_shown(output: bytes) -> str:
    """Give a command's words without line control: in a transcript nothing moves a cursor (ECMA-48 5.4, ECMA-35 13.2)."""
    return _CONTROL.sub("", output.decode(errors="replace"))
