"""What the REST answers, as JSON: names as Azure's clients know them, times in RFC 3339, and nothing that is not declared."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from provider.consent.ask import Enabled
from provider.consent.letters import Cut
from provider.consent.standing import Standing, Stay, Tenure
from provider.consent.watching import Pass
from provider.rest.arm import JSON
from provider.store.filed import Notice, State
from provider.store.visits import Visit

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Guid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
WatchLink = Annotated[
    str | None, Field(description="The giver's page, which holds no secret. Absent where tenants cannot watch.")
]
ErcsName = Annotated[str, Field(alias="ERCSName", description="The emergency recovery console node that serves the consent.")]


LAST_MS = 253_402_300_799_999  # 9999-12-31, the last that RFC 3339 can say


class Shape(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", serialize_by_alias=True
    )


def answer(shape: Shape) -> Response:
    """What is not known is left out."""
    return Response(shape.model_dump_json(by_alias=True, exclude_none=True), media_type=JSON)


def secret(shape: Shape) -> Response:
    """An answer that holds a token, or was given for one."""
    found = answer(shape)
    found.headers["cache-control"] = "no-store"
    return found


def when(ms: int) -> str:
    """A node's clock may say anything: what is past all calendars is their last millisecond."""
    seconds, rest = divmod(min(ms, LAST_MS), 1000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def when_if(ms: int | None) -> str | None:
    return None if ms is None else when(ms)


# errors


class ErrorDetail(Shape):
    code: str
    message: str
    target: str | None = None


class ErrorAnswer(Shape):
    error: ErrorDetail


# consents


class EnabledAnswer(Shape):
    """`outcome`: whether the consent is fresh, stood already (repeated), or was renewed."""

    ercs_name: ErcsName
    consent_id: str
    state: Literal["granted"]
    outcome: Literal["fresh", "repeated", "renewed"]
    resource_id: str
    virtual_machine_uuid: str
    expires_on: Time
    kinds: list[str]
    access: str
    operators: list[str]
    only_while_watched: bool
    connect_command: str
    delete_command: str
    watch_link: WatchLink = None

    @classmethod
    def of(cls, enabled: Enabled, resource_id: str, watch_link: str | None) -> EnabledAnswer:
        consent = enabled.consent
        return cls(
            ercs_name=consent.node,
            consent_id=consent.cid,
            state="granted",
            outcome=enabled.how.value,
            resource_id=resource_id,
            virtual_machine_uuid=enabled.uuid,
            expires_on=when(consent.expires_at * 1000),
            kinds=sorted(consent.kinds),
            access=str(consent.access),
            operators=sorted(map(str, consent.operators)),
            only_while_watched=consent.watched,
            connect_command=f"ConnectTo-TenantVm -ResourceID {resource_id}",
            delete_command=f"Delete-TenantVMSession -ResourceID {resource_id}",
            watch_link=watch_link,
        )


class WatchAnswer(Shape):
    """`watchToken`: for the websocket `watchUrl`, once, until `expiresAt`."""

    watch_token: str
    watch_url: str
    expires_at: Time

    @classmethod
    def of(cls, admitted: Pass) -> WatchAnswer:
        return cls(watch_token=admitted.token, watch_url=admitted.url, expires_at=when(admitted.expires_at * 1000))


class CutShape(Shape):
    """One node's end of a consent. `confirmedAt`: its signed word; without it, `atLatest` is when it has cut by itself."""

    ercs_name: ErcsName
    confirmed_at: Time | None = None
    not_confirmed: bool
    at_latest: Time | None = None
    sessions: int | None = None
    cut_milliseconds: float | None = None

    @classmethod
    def of(cls, notice: Notice, at_latest_ms: int | None = None) -> CutShape:
        confirmed = notice.confirmed_ms is not None
        return cls(
            ercs_name=notice.node,
            confirmed_at=when_if(notice.confirmed_ms),
            not_confirmed=not confirmed,
            at_latest=None if confirmed else when_if(at_latest_ms),
            sessions=notice.sessions,
            cut_milliseconds=None if notice.cut_us is None else notice.cut_us / 1000,
        )


class DisabledAnswer(Shape):
    state: Literal["revoked"]
    cuts: list[CutShape]

    @classmethod
    def of(cls, cuts: list[Cut]) -> DisabledAnswer:
        return cls(state="revoked", cuts=[CutShape.of(cut.notice, cut.at_latest_ms) for cut in cuts])


class VisitShape(Shape):
    """One operator's session, as the node recorded it."""

    account: str
    address: str
    kind: str
    access: str
    ercs_name: ErcsName
    connected_at: Time
    disconnected_at: Time | None = None
    ending: str | None = None

    @classmethod
    def of(cls, visit: Visit) -> VisitShape:
        return cls(
            account=visit.account,
            address=visit.address,
            kind=visit.kind,
            access=visit.access,
            ercs_name=visit.node,
            connected_at=when(visit.began_ms),
            disconnected_at=when_if(visit.ended_ms),
            ending=visit.ending,
        )


class StayShape(Shape):
    """The consent at one node, from one of its renewals or moves to the next."""

    ercs_name: ErcsName
    state: State
    issued_on: Time
    expires_on: Time
    answered_at: Time | None = None
    ended_at: Time | None = None
    why: str | None = None

    @classmethod
    def of(cls, stay: Stay) -> StayShape:
        return cls(
            ercs_name=stay.node,
            state=stay.state,
            issued_on=when(stay.issued_at * 1000),
            expires_on=when(stay.expires_at * 1000),
            answered_at=when_if(stay.answered_ms),
            ended_at=when_if(stay.ended_ms),
            why=stay.why or None,
        )


class ConsentShape(Shape):
    consent_id: str
    state: State
    ercs_name: Annotated[str | None, Field(alias="ERCSName", description="Absent while no node has it.")] = None
    giver: str
    reason: str
    kinds: list[str]
    access: str
    operators: list[str]
    only_while_watched: bool
    issued_on: Time
    expires_on: Time
    virtual_machine_uuid: str
    ending: str | None = None
    visits: list[VisitShape]
    nodes: list[StayShape]
    cuts: list[CutShape]

    @classmethod
    def of(cls, tenure: Tenure) -> ConsentShape:
        return cls(
            consent_id=tenure.consent_id,
            state=tenure.state,
            ercs_name=tenure.node,
            giver=tenure.giver,
            reason=tenure.reason,
            kinds=sorted(tenure.kinds),
            access=str(tenure.access),
            operators=list(tenure.operators),
            only_while_watched=tenure.watched,
            issued_on=when(tenure.issued_at * 1000),
            expires_on=when(tenure.expires_at * 1000),
            virtual_machine_uuid=tenure.uuid,
            ending=tenure.ending or None,
            visits=[VisitShape.of(one) for one in tenure.visits],
            nodes=[StayShape.of(one) for one in tenure.stays],
            cuts=[CutShape.of(one) for one in tenure.cuts],
        )


class AccessAnswer(Shape):
    """`state` none: nothing stands. `connected`: who is connected now, as far as the node has told."""

    id: str
    name: Literal["vmAccess"] = "vmAccess"
    feature_enabled: bool
    state: State | Literal["none"]
    ercs_name: Annotated[str | None, Field(alias="ERCSName")] = None
    expires_on: Time | None = None
    only_while_watched: bool | None = None
    watch_link: WatchLink = None
    connected: list[VisitShape]
    consent: ConsentShape | None = None
    earlier: list[ConsentShape]

    @classmethod
    def of(cls, standing: Standing, resource_id: str, watch_link: str | None) -> AccessAnswer:
        current = standing.current
        return cls(
            id=f"{resource_id}/vmAccess",
            feature_enabled=standing.enabled,
            state="none" if current is None else current.state,
            ercs_name=None if current is None else current.node,
            expires_on=None if current is None else when(current.expires_at * 1000),
            only_while_watched=None if current is None else current.watched,
            watch_link=watch_link,
            connected=[] if current is None else [VisitShape.of(one) for one in current.connected()],
            consent=None if current is None else ConsentShape.of(current),
            earlier=[ConsentShape.of(one) for one in standing.earlier],
        )


class ReceiptAnswer(BaseModel):
    """What `eva-provider verify-receipt` verifies offline, by the nodes' public keys: the nodes' own tokens."""

    model_config = ConfigDict(extra="forbid")

    eva_receipt: Literal[1]
    consent_id: str
    resource_id: str
    made_at_ms: int
    tokens: list[str]
    after: str | None = Field(None, description="Absent in the first page: what this one follows.")
    next: str | None = Field(None, description="Absent in the last page: the $skipToken of the one that follows.")
