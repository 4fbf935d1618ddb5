"""The story that `make demo` tells: a tenant's consent, an operator at the guest's console and screen, the cut, the proof.

Each step runs the commands that a person would type and checks what came of them; StepFailed says what did not.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from eva.token import thumbprint
from lab.cloud import OPERATOR, SUBSCRIPTION, Cloud
from lab.framebuffer import Framebuffer
from lab.guest_image import ROOT
from lab.libvirt_host import Guest
from lab.shell import Shell, StepFailed, shown
from provider.consent.receipt import BadReceipt, verify_receipt
from provider.keys import read_public

PICTURE = ROOT / ".lab" / "demo" / "screen.png"
NODE = "AzS-ERCS01"
CUT, REFUSED = 4, 1  # statuses of ConnectTo-TenantVm
RETURN = 0xFF0D  # X11 keysym
TYPED_ON_SCREEN = "uname -a"
# More than the cursor and the typed line's own letters, less than the line that answers it.
CHANGED_PIXELS = 1500
PICTURE_S = 60.0  # seconds of patience with the screen
AGAIN_S = 5.0  # after which what was typed there and changed nothing is typed once more

Step = Callable[[], None]
Fits = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Callers:
    """Files for `curl --config`, one for each of those who call the REST."""

    administrator: Path
    tenant: Path


class Story:
    """`picture`: where the PNG of the screen goes."""

    def __init__(self, shell: Shell, cloud: Cloud, guest: Guest, callers: Callers, picture: Path) -> None:
        self._shell = shell
        self._cloud = cloud
        self._callers = callers
        self._vm = str(guest.resource_id)
        self._picture = picture
        self._begun = time.monotonic()
        self._cut_ms = ""
        self._records = ""
        self.at = "set-up"  # the step under way

    def play(self) -> None:
        """Tell all of it, nobody sitting there. Raises StepFailed, and what the lab's parts raise."""
        self._step("The platform lets the tenant's subscription consent", self.enable)
        self._step("The tenant consents", self.consent)
        self._step("The operator's workstation is let in", self.let_in)
        self._step("The operator works in the guest's console, through a pipe", self.console)
        self._step("The operator sees the guest's screen", self.screen)
        self._step("The tenant looks who is connected, and withdraws", self.cut)
        self._step("The tenant's receipt, verified without the provider", self.receipt)
        self._step("The audit", self.audit)
        took = time.monotonic() - self._begun
        what = "serial console and screen of a guest without a network, by consent"
        chain = f"audit chain of {self._records} records valid"
        self._shell.say(f"\nShown in {took:.0f} s: {what}; cut in {self._cut_ms} ms, consent-revoked; {chain}.")

    def seat(self) -> None:
        """Tell it to a person at a terminal, who gets the guest's console. Raises as play() does."""
        self._step("The platform lets the tenant's subscription consent", self.enable)
        self._step("The tenant consents", self.consent)
        self._step("The operator's workstation is let in", self.let_in)
        self._step("You are the operator", self.hand_over)
        self._step("The consent ends", self.withdraw)
        self._step("The tenant's receipt, verified without the provider", self.receipt)
        self._step("The audit", self.audit)

    def enable(self) -> None:
        """Ask as Azure Stack Hub's script does, with its capital T."""
        body = json.dumps({"TenantSubscriptionId": SUBSCRIPTION})
        url = self._cloud.endpoints.feature("enableTenantSubscriptionFeature")
        self._shell.ask(*_curl(self._callers.administrator, "--json", body, url))

    def consent(self) -> None:
        """The answer has what the tenant gives to the operator; the lines are those of Azure Stack Hub's script."""
        answer = self._tell("enableVmAccess", "--json", '{"reason": "locked out of vm1"}')
        _must(answer.get("ERCSName") == NODE, "the answer names no node", f"{answer}")
        self._shell.say("From which the tenant's script prints:")
        for line in (
            "Please provide the following output to operator\n\n",
            f"ERCS Name:\t{answer['ERCSName']}",
            answer["connectCommand"],
            answer["deleteCommand"],
        ):
            self._shell.show(line)

    def let_in(self) -> None:
        """The address that the operator calls from goes on the node's safelist."""
        self._shell.run("Grant-RdpAccessToErcsVM")

    def console(self) -> None:
        """Two commands in the guest."""
        words = ("ConnectTo-TenantVm", "-ResourceID", self._vm)
        done = self._shell.run(*words, typed="uname -a\nip link\n", answered=r"(?s)\nLinux .*\n\d+: lo: .*\n +link/loopback .*#")
        kernel = re.search(r"^Linux \S+ (\S+) .*", done.out, re.MULTILINE)
        _must(kernel is not None, "the guest did not name its kernel", done.text)
        links = re.findall(r"^\d+: ([^:@\s]+)", done.out, re.MULTILINE)
        _must(links == ["lo"], f"the guest's links are {links}", done.text)
        self._shell.say(f"The guest answered: kernel {kernel[1] if kernel else ''}, and no network link but lo.")

    def screen(self) -> None:
        """A picture of the screen, after something was typed there."""
        with self._shell.start("ConnectTo-TenantVm", "-ResourceID", self._vm, "-Graphics") as viewer:
            port = int(viewer.wait_said(r"^vncviewer 127\.0\.0\.1::(\d+)$")[1])
            said = asyncio.run(_take_picture(port, self._picture))
            code = viewer.wait_end()
            self._shell.show(viewer.text)
            _must(code == 0, f"it ended with status {code}", viewer.text)
        self._shell.say(f"A VNC viewer typed {TYPED_ON_SCREEN!r} there and saved {shown([str(self._picture)])}: {said}.")

    def cut(self) -> None:
        """A session is open and the guest prints all the time; the tenant sees whose it is, and withdraws."""
        with self._shell.start("ConnectTo-TenantVm", "-ResourceID", self._vm) as session:
            session.type("while sleep 0.3; do cat /proc/uptime; done\n")
            session.wait_said(r"(^[\d.]+ [\d.]+\n){2}")
            self._look()
            self.withdraw()
            _must(self._cut_ms != "", "the node named no cut", session.text)
            code = session.wait_end()
            tail = session.text.splitlines()[-3:]
            self._shell.say("The operator's session, its last lines:")
            self._shell.show("\n".join(tail))
            _must("consent-revoked" in tail[-1], "the operator was not told why", session.text)
            _must(code == CUT, f"the session ended with status {code}", session.text)
        self._shell.say("And nobody connects again:")
        done = self._shell.run("ConnectTo-TenantVm", "-ResourceID", self._vm, expect=(REFUSED,))
        _must(done.out == "", "the guest was heard after the cut", done.text)

    def _look(self) -> None:
        """Ask until the node has told that the session is open."""
        answer = self._tell(
            "vmAccess", members=("state", "ERCSName", "expiresOn", "connected"), until=lambda one: one["connected"]
        )
        accounts = [one["account"] for one in answer["connected"]]
        _must(accounts == [OPERATOR], "another operator is told of", f"{answer}")

    def withdraw(self) -> None:
        """The answer waits for the node's word; a consent that has ended already is told of once more."""
        answer = self._tell("disableVmAccess", "--request", "POST")
        cuts = answer["cuts"]
        _must([one["ERCSName"] for one in cuts if "confirmedAt" in one] == [NODE], "the node did not confirm", f"{answer}")
        self._cut_ms = f"{cuts[0]['cutMilliseconds']:.1f}" if "cutMilliseconds" in cuts[0] else ""

    def receipt(self) -> None:
        """The node's own signed word, and its public key: nothing else is believed."""
        name = "receipt.json"
        file = self._callers.tenant.with_name(name)
        key = self._cloud.nodes[NODE].directory / "node.pub"
        # the last records may still be on their way from the node
        self._tell("vmAccess", members=("state",), until=lambda one: one["state"] == "none" and _all_left(one))
        self._tell("vmAccess/receipt", "--output", str(file), until=lambda _: _is_whole(file, key))
        done = self._shell.run("eva-provider", "verify-receipt", str(file), "--node-key", str(key))
        _must("none is missing" in done.out, "the receipt is not whole", done.text)

    def audit(self) -> None:
        """Every session has its start and its end in a chain that holds."""
        done = self._shell.run(*self._node("verify-audit"))
        records = re.search(r"(\d+) records, chain valid", done.out)
        _must(records is not None, "the chain is not valid", done.text)
        self._records = records[1] if records else ""
        done = self._shell.run(*self._node("sessions"))
        _must(done.out != "" and " open\n" not in done.out, "a session has no end", done.text)

    def hand_over(self) -> None:
        """The person at the terminal types to the guest."""
        home = [f"{name}={self._shell.environment[name]}" for name in ("HOME", "EVA_ERCS", "EVA_ACCOUNT", "EVA_PASSWORD_FILE")]
        operator = ["env", *home]
        self._shell.say(
            "Return brings the guest's prompt, ~. at the start of a line leaves, ~? shows all keys. From another terminal,"
        )
        self._shell.say(
            "in this folder, the tenant can withdraw, or look who is connected; the operator can end it, or open the screen:"
        )
        self._shell.show(shown(self._curl_vm("disableVmAccess", "--request", "POST")))
        self._shell.show(shown(self._curl_vm("vmAccess")))
        self._shell.show(shown([*operator, ".venv/bin/Delete-TenantVMSession", "-ResourceID", self._vm]))
        self._shell.show(shown([*operator, ".venv/bin/ConnectTo-TenantVm", "-ResourceID", self._vm, "-Graphics"]))
        code = self._shell.sit("ConnectTo-TenantVm", "-ResourceID", self._vm)
        _must(code in (0, CUT), f"it ended with status {code}", "")

    def _step(self, title: str, step: Step) -> None:
        self.at = title
        self._shell.heading(title)
        step()

    def _tell(self, action: str, *options: str, members: tuple[str, ...] = (), until: Fits = lambda _: True) -> dict[str, Any]:
        """Make the tenant's request about the VM."""
        return self._shell.ask(*self._curl_vm(action, *options), members=members, until=until)

    def _curl_vm(self, action: str, *options: str) -> list[str]:
        return _curl(self._callers.tenant, *options, self._cloud.endpoints.machine(self._vm, action))

    def _node(self, *words: str) -> list[str]:
        return ["eva-broker", "--config", str(self._cloud.nodes[NODE].settings), *words]


async def _take_picture(port: int, path: Path) -> str:
    """Type on the screen at that loopback port and save what it then shows; give what was seen. Raises StepFailed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    screen: Framebuffer | None = None
    try:
        async with asyncio.timeout(PICTURE_S):
            screen = await Framebuffer.open(reader, writer)
            await screen.update()
            before = screen.image.copy()
            typing = asyncio.create_task(_type_line(screen))
            try:
                while before.size == screen.image.size and _difference(before, screen) < CHANGED_PIXELS:
                    await screen.update(incremental=True)
            finally:
                typing.cancel()
    except TimeoutError:
        raise StepFailed(f"the screen did not change in {PICTURE_S:.0f} s", screen.title if screen else "") from None
    finally:
        writer.close()
    colours = len(screen.image.getcolors(1 << 24) or ())
    if colours < 2:
        raise StepFailed("the picture is blank", f"{screen.image.size}")
    draft = path.with_suffix(f".{os.getpid()}")
    screen.image.save(draft, "PNG")
    draft.rename(path)
    return f"{screen.image.width} x {screen.image.height} pixels in {colours} colours"


async def _type_line(screen: Framebuffer) -> None:
    """Again and again: of a guest that gets no processor QEMU drops keys."""
    while True:
        await screen.type(TYPED_ON_SCREEN)
        screen.key(RETURN, down=True)
        screen.key(RETURN, down=False)
        await asyncio.sleep(AGAIN_S)


def _difference(before: Image.Image, screen: Framebuffer) -> int:
    """Count the pixels that are not as before."""
    changed = ImageChops.difference(before, screen.image).convert("L").point(lambda value: 255 if value else 0)
    return changed.histogram()[255]


def _curl(caller: Path, *words: str) -> list[str]:
    return ["curl", "--config", str(caller), *words]


def _all_left(access: dict[str, Any]) -> bool:
    """Say whether the newest consent of an answer to GET vmAccess has no session whose end is not told."""
    return all("ending" in visit for visit in access["earlier"][0]["visits"])


def _is_whole(receipt: Path, node_key: Path) -> bool:
    """Say whether it reaches the consent's end."""
    key = read_public(node_key)
    try:
        return verify_receipt([receipt.read_bytes()], {thumbprint(key): key}, time.time_ns() // 1_000_000).whole
    except BadReceipt:
        return False  # `verify-receipt` tells why


def _must(true: bool, what: str, output: str) -> None:
    if not true:
        raise StepFailed(what, output)
