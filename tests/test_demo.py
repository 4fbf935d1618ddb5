"""`make demo` as people run it: without a terminal, at one, and interrupted."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from lab.shell import Shell, StepFailed

ROOT = Path(__file__).resolve().parent.parent
DEMO = (sys.executable, "-m", "lab.demo")
PATIENCE_S = 240.0  # on a machine that does other things, too
ENDING_S = 60.0  # ... with an end

pytestmark = pytest.mark.timeout(300)


def directories(transcript: str) -> list[Path]:
    """Give the directories that the demo says it works in."""
    found = sorted({Path(name) for name in re.findall(r"/\S*?/eva-(?:demo|host)-\w+", transcript)})
    assert [path.name[:9] for path in found] == ["eva-demo-", "eva-host-"]
    return found


def processes(places: list[Path]) -> list[int]:
    """Give the processes whose command line or environment names one of the directories."""
    names = [str(path).encode() for path in places]
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if any(name in told for name in names):
                pids.append(int(process.name))
    return pids


def assert_nothing_left(transcript: str) -> None:
    """Hold that no process and no directory of the demo is there, once what was killed has got a processor to end on."""
    places = directories(transcript)
    deadline = time.monotonic() + ENDING_S
    while processes(places) and time.monotonic() < deadline:
        time.sleep(0.02)  # whoever is nobody's child cannot be awaited
    assert processes(places) == []
    assert [path for path in places if path.exists()] == []


class Seat:
    """A terminal at which the demo runs, as the leader of its session."""

    def __init__(self) -> None:
        self.master, slave = pty.openpty()
        environment = os.environ | {"TERM": "xterm"}
        self.demo = subprocess.Popen(
            ["setsid", "--ctty", *DEMO], stdin=slave, stdout=slave, stderr=slave, cwd=ROOT, env=environment
        )
        os.close(slave)
        self.data = b""

    @property
    def text(self) -> str:
        """What came so far; decoded whole, since a read may end inside a character or a line's end."""
        return self.data.decode(errors="replace").replace("\r\n", "\n")

    def read_until(self, pattern: str) -> None:
        """Read until something on the screen fits; an empty pattern reads to the end."""
        deadline = time.monotonic() + PATIENCE_S
        while not pattern or not re.search(pattern, self.text, re.MULTILINE):
            assert select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))[0], self.text
            try:
                data = os.read(self.master, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                data = b""
            if not data:
                assert not pattern, self.text
                return
            self.data += data

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1

    def close(self) -> None:
        if self.demo.poll() is None:
            self.demo.terminate()
            self.demo.wait(ENDING_S)
        if self.master >= 0:
            self.hang_up()


@pytest.fixture
def seat() -> Iterator[Seat]:
    """Give a terminal with the demo just started."""
    seat = Seat()
    yield seat
    seat.close()


@pytest.fixture(scope="module")
def story() -> str:
    """Give the transcript of a run without a terminal that ended well."""
    done = subprocess.run(
        DEMO, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


# --- the story without a terminal


def test_story_prints_the_lines_for_the_operator(story: str) -> None:
    vm = r"/subscriptions/[0-9a-f-]{36}/resourceGroups/rg1/providers/Microsoft\.Compute/virtualMachines/vm1"
    assert re.search(
        r"^ +Please provide the following output to operator\n\n"
        rf" +ERCS Name:\tAzS-ERCS01\n +ConnectTo-TenantVm -ResourceID {vm}\n +Delete-TenantVMSession -ResourceID {vm}\n",
        story,
        re.MULTILINE,
    )


def step(story: str, title: str) -> str:
    """Give what the story tells under a title."""
    return story.partition(f"== {title}\n")[2].partition("\n== ")[0]


def test_platform_enables_the_subscription_by_the_original_request(story: str) -> None:
    told = step(story, "The platform lets the tenant's subscription consent")
    assert re.search(
        r"""^\$ curl --config \S+ --json '\{"TenantSubscriptionId": "[0-9a-f-]{36}"\}' 'https://localhost:\d+/subscriptions/"""
        r"[0-9a-f-]{36}/providers/Microsoft\.Compute\.Admin/locations/local/features/Microsoft\.Compute\.EmergencyVMAccess/"
        r"enableTenantSubscriptionFeature\?api-version=2020-11-01'\n +HTTP 200$",
        told,
    )


def test_tenant_consents_by_the_original_request(story: str) -> None:
    told = step(story, "The tenant consents")
    assert re.search(r"^\$ curl .*/virtualMachines/vm1/enableVmAccess\?api-version=2020-06-01'$", told, re.MULTILINE)
    assert '"ERCSName": "AzS-ERCS01"' in told


def test_no_secret_is_shown(story: str) -> None:
    assert "eyJ" not in story


def test_tenant_sees_who_is_connected(story: str) -> None:
    told = step(story, "The tenant looks who is connected, and withdraws")
    assert '"state": "granted"' in told
    assert re.findall(r'"account": "(\w+)"', told) == ["alice"]


def test_receipt_is_whole(story: str) -> None:
    told = step(story, "The tenant's receipt, verified without the provider")
    assert re.search(r"^\$ eva-provider verify-receipt \S+ --node-key \S+$", told, re.MULTILINE)
    assert told.count("session-start") == told.count("session-end") == 3
    assert told.endswith("every record is genuine and none is missing\n")


def test_story_holds_the_guest_kernels_name(story: str) -> None:
    assert re.search(r"^ +Linux vm1 \S+-cloud-amd64 .* GNU/Linux$", story, re.MULTILINE)


def test_story_shows_lo_and_no_other_link(story: str) -> None:
    assert re.findall(r"^ +\d+: (\S+): <", story, re.MULTILINE) == ["lo"]


def test_story_saves_a_picture_that_is_not_blank(story: str) -> None:
    said = re.search(r"saved (\S+): (\d+) x (\d+) pixels in (\d+) colours", story)
    assert said
    with Image.open(ROOT / said[1]) as picture:
        assert picture.size == (int(said[2]), int(said[3]))
        colours = picture.getcolors(1 << 24)
    assert colours is not None
    assert len(colours) == int(said[4]) >= 2


def test_story_types_through_graphics(story: str) -> None:
    assert "A VNC viewer typed 'uname -a' there" in story


def test_cut_is_confirmed_with_its_time(story: str) -> None:
    told = step(story, "The tenant looks who is connected, and withdraws")
    took = re.search(r'"confirmedAt": "\d{4}-\S+Z",\n.*\n +"sessions": 1,\n +"cutMilliseconds": ([\d.]+)\n', told)
    assert took
    assert float(took[1]) < 1000


def test_operator_is_told_why_and_when(story: str) -> None:
    assert re.search(r"^ +eva: The consent was withdrawn\. \(\d\d:\d\d:\d\d \w+, consent-revoked\)$", story, re.MULTILINE)


def test_nobody_connects_after_the_cut(story: str) -> None:
    after = story.partition("And nobody connects again:")[2]
    assert re.search(r"^ +ConnectTo-TenantVm: There is no consent in force", after, re.MULTILINE)


def test_audit_is_valid_and_holds_every_session(story: str) -> None:
    assert re.search(r"\d+ records, chain valid", story)
    endings = re.findall(r"alice at 127\.0\.0\.1  \S+  (\S+)( at|$)", story, re.MULTILINE)
    assert [word for word, _ in endings] == ["operator-left", "operator-left", "consent-revoked"]


def test_story_leaves_nothing(story: str) -> None:
    assert_nothing_left(story)


# --- at a terminal


def test_person_at_a_terminal_gets_the_guests_console(seat: Seat) -> None:
    seat.read_until(r"^eva: ~\? at the start of a line shows the keys")
    seat.type("\r")
    seat.read_until(r"root@vm1:/root# ")
    assert len(processes(directories(seat.text))) > 4, "the look for processes would find those that are left"
    told = seat.text
    assert re.search(r"^ +curl --config \S+ --request POST 'https://\S+/vm1/disableVmAccess\?\S+'$", told, re.MULTILINE)
    assert re.search(r"^ +curl --config \S+ 'https://\S+/vm1/vmAccess\?\S+'$", told, re.MULTILINE)
    assert "~. at the start of a line leaves, ~? shows all keys" in told
    seat.type("uname -n\r")
    seat.read_until(r"^vm1$[^#]*root@vm1:/root# ")
    seat.type("~.")
    seat.read_until("")
    assert seat.demo.wait(ENDING_S) == 0, seat.text
    assert "operator-left" in seat.text
    assert re.search(r'"confirmedAt": "', seat.text)
    assert "every record is genuine and none is missing" in seat.text
    assert re.search(r"\d+ records, chain valid", seat.text)
    assert_nothing_left(seat.text)


def test_terminal_that_hangs_up_leaves_nothing(seat: Seat) -> None:
    """A shell whose terminal is gone sends SIGHUP to all of its job: to the warden of QEMU, too."""
    seat.read_until(r"^mosquitto, the provider")
    places = directories(seat.text)
    assert processes(places) != []
    os.killpg(seat.demo.pid, signal.SIGHUP)
    seat.hang_up()
    assert seat.demo.wait(ENDING_S) == 128 + signal.SIGHUP
    assert_nothing_left(seat.text)


# --- a story that goes wrong


def test_failure_tells_its_step_and_the_logs() -> None:
    """The broker is killed after the consent."""
    with subprocess.Popen(DEMO, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd=ROOT) as demo:
        assert demo.stdout is not None
        transcript = ""
        for line in demo.stdout:
            transcript += line
            if line.startswith("Delete-TenantVMSession", 4):
                os.kill(daemon_of(demo.pid, b"eva-broker", directories(transcript)), signal.SIGKILL)
        code = demo.wait(ENDING_S)
    assert code == 1
    assert re.search(r"^FAILED at: The operator", transcript, re.MULTILINE)
    assert "no connection to wss://localhost:" in transcript
    assert re.search(r"^-- the end of \S+broker\.log\n(?:.*\n)*?INFO broker", transcript, re.MULTILINE)
    assert_nothing_left(transcript)


def daemon_of(parent: int, program: bytes, places: list[Path]) -> int:
    """Give the child of `parent` that runs this program."""
    for pid in processes(places):
        with suppress(OSError):
            process = Path(f"/proc/{pid}")
            if f"\nPPid:\t{parent}\n" in (process / "status").read_text() and program in (process / "cmdline").read_bytes():
                return pid
    raise AssertionError(f"{parent} has no {program!r}")


def test_command_that_fails_is_a_failed_step(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as failed:
        Shell({}, tmp_path).run("sh", "-c", "echo so; echo why >&2; exit 3")
    assert failed.value.output == "so\nwhy\n"


def test_answer_that_is_no_object_is_a_failed_step(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="no JSON object"):
        Shell({}, tmp_path).ask("echo", "[1]")


def test_answer_is_asked_for_until_it_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = 'echo . >> "$0"; printf \'{"asked": %d, "more": 1}\' "$(wc -l < "$0")"'
    asking = Shell({}, tmp_path).ask(
        "sh", "-c", count, str(tmp_path / "log"), members=("asked",), until=lambda it: it["asked"] > 2
    )
    assert asking == {"asked": 3, "more": 1}
    assert capsys.readouterr().out.splitlines()[1:] == ["    {", '      "asked": 3', "    }"]


def test_command_that_ends_never_says_more(tmp_path: Path) -> None:
    with Shell({}, tmp_path).start("echo", "one") as running, pytest.raises(StepFailed, match="two"):
        running.wait_said("two")


def test_words_are_shown_without_what_moves_a_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Shell({}, tmp_path).run("printf", r"\0337\033[r\0338\033[m\033(Bdone\r\n")
    assert capsys.readouterr().out.splitlines()[-1] == "    done"
