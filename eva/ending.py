"""Why a session ended: one enum that gives the websocket close code, the operator's sentence, audit word and metric label."""

from __future__ import annotations

from enum import Enum


class Ending(Enum):
    """`word` is the audit's and the metric's; `code` the RFC 6455 close code (7.4.2, private use); `text` is for a person."""

    OPERATOR_LEFT = ("operator-left", 4000, "You left the console.")
    CONSENT_EXPIRED = ("consent-expired", 4001, "The tenant's consent has run out.")
    CONSENT_REVOKED = ("consent-revoked", 4002, "The consent was withdrawn.")
    FEATURE_DISABLED = ("feature-disabled", 4003, "Emergency VM Access was disabled for this subscription.")
    LEASE_LOST = ("lease-lost", 4004, "This node can no longer confirm that the consent stands.")
    VM_GONE = ("vm-gone", 4005, "The virtual machine was removed or re-created.")
    VM_STOPPED = ("vm-stopped", 4006, "The virtual machine stopped.")
    TAKEN_OVER = ("taken-over", 4007, "The session was taken up from another connection.")
    NODE_STOPPING = ("node-stopping", 4008, "This emergency recovery console node is stopping.")
    AUDIT_FAILED = ("audit-failed", 4009, "The audit record cannot be written, so the console is closed.")
    SLOW_OPERATOR = ("slow-operator", 4010, "This connection was too slow for the console.")
    PROTOCOL_ERROR = ("protocol-error", 4011, "The console or its client broke the protocol.")
    CONSOLE_LOST = ("console-lost", 4012, "The hypervisor closed the console, or did not open it.")

    def __init__(self, word: str, code: int, text: str) -> None:
        self.word = word
        self.code = code
        self.text = text

    @classmethod
    def of_word(cls, word: str) -> Ending:
        """The ending whose audit word this is. Raises KeyError."""
        return _BY_WORD[word]

    @classmethod
    def of_code(cls, code: int) -> Ending:
        """The ending whose close code this is. Raises KeyError."""
        return _BY_CODE[code]


_BY_WORD = {ending.word: ending for ending in Ending}
_BY_CODE = {ending.code: ending for ending in Ending}

# The endings a provider may give as the reason of a revocation.
REVOKING = frozenset({Ending.CONSENT_REVOKED, Ending.FEATURE_DISABLED})
