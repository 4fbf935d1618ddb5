"""Where a role holds: the whole cloud, a subscription, a resource group or a virtual machine. Pure.

A scope is read as a resource ID is (eva.resource_id): segment by segment, without regard to case, ASCII only, never decoded. So
`/subscriptions/1…` does not hold `/subscriptions/12…`, and no spelling of another tenant's scope passes for one's own. Errors:

    BadScope        the text is none of the four
"""

from __future__ import annotations

from dataclasses import dataclass, field

from eva.resource_id import BadResourceId, ResourceId, is_guid

_GROUP_SEGMENTS = 4


class BadScope(ValueError):
    def __init__(self, text: str, why: str) -> None:
        self.text = text[:128]
        self.why = why
        super().__init__(f"not a scope ({why}): {self.text!r}")


@dataclass(frozen=True, slots=True)
class Scope:
    """Equal and hashed by `key`, in small letters; the text keeps the case in which it was written."""

    text: str = field(compare=False)
    key: str

    @classmethod
    def parse(cls, text: str) -> Scope:
        """`/`, `/subscriptions/<guid>`, `…/resourceGroups/<name>` or a virtual machine's resource ID. Raises BadScope."""
        if text == "/":
            return CLOUD
        parts = text.split("/")[1:]
        try:
            if not text.startswith("/") or len(parts) not in (2, _GROUP_SEGMENTS, 8):
                raise BadScope(text, "it is /, a subscription, a resource group or a virtual machine")
            if len(parts) == 8:
                return cls.of(ResourceId.parse(text))
            # the resource ID of a machine in it: one reader for all of them
            probe = [*parts, "resourceGroups", "x"][:_GROUP_SEGMENTS]
            found = ResourceId.parse("/".join(["", *probe, "providers/Microsoft.Compute/virtualMachines/x"]))
        except BadResourceId as error:
            raise BadScope(text, error.why) from None
        return cls.subscription(found.subscription) if len(parts) == 2 else cls.group(found)

    @classmethod
    def of(cls, resource_id: ResourceId) -> Scope:
        return cls(str(resource_id), resource_id.key)

    @classmethod
    def group(cls, resource_id: ResourceId) -> Scope:
        text = f"/subscriptions/{resource_id.subscription}/resourceGroups/{resource_id.resource_group}"
        return cls(text, text.lower())

    @classmethod
    def subscription(cls, guid: str) -> Scope:
        """Raises BadScope."""
        text = f"/subscriptions/{guid}"
        if not is_guid(guid):
            raise BadScope(text, "the subscription is not a GUID")
        return cls(text, text.lower())

    def around(self) -> tuple[str, ...]:
        """The keys of the scopes that hold this one: itself, and all above it."""
        parts = self.key.split("/")
        above = ["/".join(parts[:count]) for count in (3, 5) if count < len(parts)]
        return tuple(dict.fromkeys([CLOUD.key, *above, self.key]))

    def holds(self, other: Scope) -> bool:
        return self.key in other.around()

    @property
    def in_subscription(self) -> str | None:
        """The subscription's GUID in small letters; None for the whole cloud."""
        parts = self.key.split("/")
        return parts[2] if len(parts) > 2 else None


CLOUD = Scope("/", "/")
