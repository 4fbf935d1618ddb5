"""ARM resource IDs of virtual machines: the one name by which a consent and a domain are matched.

`/subscriptions/<guid>/resourceGroups/<rg>/providers/Microsoft.Compute/virtualMachines/<name>`, compared without regard to
case. ARM would allow letters of any script in a resource group; here only ASCII passes, so that no look-alike of another
tenant's name can be written (docs/decisions/001-ascii-resource-ids.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

MAX_LENGTH = 512

_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
# ARM naming rules: resource group 1-90 of these and no full stop at the end; VM 1-64, no _ at the start, no . or - at the end.
_GROUP = re.compile(r"[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]", re.ASCII)
_VM = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?", re.ASCII)
_FIXED = {1: "subscriptions", 3: "resourcegroups", 5: "providers", 6: "microsoft.compute", 7: "virtualmachines"}


class BadResourceId(ValueError):
    """The text is not the resource ID of a virtual machine. `text` is cut to 128 characters; `why` says what is wrong where."""

    def __init__(self, text: str, why: str) -> None:
        self.text = text[:128]
        self.why = why
        super().__init__(f"not the resource ID of a virtual machine ({why}): {self.text!r}")


def is_guid(text: str) -> bool:
    """Whether the whole of `text` is a GUID in the 8-4-4-4-12 form, any case."""
    return _GUID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ResourceId:
    """A virtual machine's resource ID. Equal and hashed by `key`; the parts keep the case in which they were first written."""

    subscription: str = field(compare=False)
    resource_group: str = field(compare=False)
    vm: str = field(compare=False)
    key: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        text = (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Compute/virtualMachines/{self.vm}"
        )
        if not is_guid(self.subscription):
            raise BadResourceId(text, "the subscription is not a GUID")
        if _GROUP.fullmatch(self.resource_group) is None:
            raise BadResourceId(text, "the resource group has a character or length that ARM refuses")
        if _VM.fullmatch(self.vm) is None:
            raise BadResourceId(text, "the virtual machine's name has a character or length that ARM refuses")
        object.__setattr__(self, "key", text.lower())

    @classmethod
    def parse(cls, text: str) -> ResourceId:
        """The ID that `text` is, whole, not percent-encoded. Raises BadResourceId."""
        if len(text) > MAX_LENGTH:
            raise BadResourceId(text, f"longer than {MAX_LENGTH} characters")
        parts = text.split("/")
        if len(parts) != 9 or parts[0] != "":
            raise BadResourceId(text, "it needs the form /subscriptions/…/resourceGroups/…/virtualMachines/…")
        for place, word in _FIXED.items():
            # casefold() would take the Kelvin sign for a k: only ASCII may match
            if not parts[place].isascii() or parts[place].lower() != word:
                raise BadResourceId(text, f"part {place} is not {word!r}")
        return cls(parts[2], parts[4], parts[8])

    @classmethod
    def parse_url_path(cls, path: str) -> ResourceId:
        """The ID that a URL's path spells, percent-decoded exactly once. Raises BadResourceId.

        An encoded slash, control character or percent sign is refused: none is in any valid name, and each is a way to
        make two programs read one URL differently.
        """
        if len(path) > 3 * MAX_LENGTH:
            raise BadResourceId(path, "too long")
        if not path.isascii():
            raise BadResourceId(path, "a character that is not ASCII")
        if re.search(r"%(?![0-9A-Fa-f]{2})", path):
            raise BadResourceId(path, "a percent sign without two hexadecimal digits")
        decoded = unquote_to_bytes(path)
        if decoded.count(b"/") != path.count("/") or b"%" in decoded:
            raise BadResourceId(path, "an encoded slash or percent sign")
        try:
            return cls.parse(decoded.decode("ascii"))
        except UnicodeDecodeError:
            raise BadResourceId(path, "a character that is not ASCII") from None

    def __str__(self) -> str:
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Compute/virtualMachines/{self.vm}"
        )
