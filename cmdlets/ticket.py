"""A session for somebody else's websocket client: this side opens it and tells where it is, and stays to tell how it goes.

The client needs nothing but a URL and two subprotocols: npm's wscat, a script in any language, noVNC's stock RFB class.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from cmdlets.clock import boot_s
from cmdlets.node import Control, Unintelligible, leaving
from cmdlets.standing import Ended, Standing
from eva.consent import Access, Kind
from eva.control import CONSOLE_PATH, CONSOLE_SUBPROTOCOLS, TICKET_PREFIX, Method, Opened
from eva.members import BadMember, Json
from eva.resource_id import ResourceId

TICKET_SECONDS = 30  # that a node keeps one

Tell = Callable[[str], None]


class TicketSession:
    """One session. `tell` takes our own lines, `give` the line that a script reads."""

    def __init__(self, control: Control, tell: Tell, give: Tell) -> None:
        self._control = control
        self._tell = tell
        self._give = give

    async def run(self, resource_id: ResourceId, kind: Kind, access: Access | None) -> Ended:
        """To the end of the session. Raises Refused, NodeFault."""
        params: dict[str, Json] = {"resource_id": str(resource_id), "kind": str(kind)}
        if access is not None:
            params["access"] = str(access)
        url = self._control.node.url
        try:
            opened = Opened.from_members(await self._control.ask(Method.SESSION_OPEN, **params))
            async with leaving(self._control, opened.session):
                standing = Standing(opened, boot_s())
                for line in standing.opening(boot_s()):
                    self._tell(line)
                self._tell(f"the ticket is good once, within {TICKET_SECONDS} s. Ctrl+C here ends the session.")
                self._give(json.dumps({"url": url + CONSOLE_PATH, "subprotocols": subprotocols(opened)}))
                while standing.ended is None:
                    event, members = await self._control.next_notice(standing.session)
                    for line in standing.apply(event, members, boot_s()):
                        self._tell(line)
        except BadMember as bad:
            raise Unintelligible(url, bad.why) from None
        return standing.ended


def subprotocols(opened: Opened) -> list[str]:
    """What a websocket to the console offers, in this order."""
    return [CONSOLE_SUBPROTOCOLS[opened.kind], TICKET_PREFIX + opened.ticket]
