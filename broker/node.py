"""The daemon: puts the node's parts together, starts closed, and stops with every session ended and recorded.

Errors:

    CannotStart     what is missing or wrong, in words for whoever runs the node
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from broker.accounts import Accounts
from broker.attempts import Attempts
from broker.audit_log import Entry
from broker.clock import Clock, SystemClock, boot_id
from broker.consents import Consents
from broker.control_channel import Desk
from broker.disk import open_disk
from broker.journal import Journal
from broker.lease import LeaseState
from broker.listener import Listener
from broker.metrics import Metrics
from broker.monitor import Monitor
from broker.notify import Supervisor
from broker.outbox import Outbox
from broker.safelist import BadRow, Safelist, parse_address
from broker.sessions import Sessions
from broker.settings import Settings
from broker.state import BadState, Change
from broker.testimony import Testimony
from broker.tickets import Tickets
from broker.uplink import Uplink
from broker.watch_desk import WatchDesk
from broker.watch_listener import WatchListener
from broker.watching import Watching
from broker.whereabouts import Inquiry
from eva import audit
from eva.ending import Ending
from eva.instant import NS
from eva.ledger import Pin
from eva.resource_id import ResourceId
from eva.strict_yaml import BadSettings
from eva.token import BadToken, SigningKey
from hypervisor.dialer import Dialer, DialError
from hypervisor.inventory import Change as VmChange
from hypervisor.inventory import Fate, HostDown, HostUp, Inventory, VmBefell, VmChanged, Watch
from web.assets import MissingAssets

log = logging.getLogger(__name__)

TICK = 0.2  # seconds between two looks at what time ends; the gate itself looks at every byte
NOTE_TIME = 30.0  # seconds between two notes of the wall clock on disk
DISK_PATIENCE = 5.0  # seconds that a write may wait before every session is cut: no audit, no console
CLOCK_SLACK = 5 * NS  # by which the wall clock may be behind the last one seen: a step of NTP between stop and start
STOP_SECONDS = 5.0  # for websockets to close


class CannotStart(Exception):
    pass


def read_private_key(path: Path) -> SigningKey:
    """Raises CannotStart, also for a file that others may read."""
    try:
        if path.stat().st_mode & 0o077:
            raise CannotStart(f"{path}: others may read this key: chmod 600 it, and think about who has it now")
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise CannotStart(f"{path}: no private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CannotStart(f"{path}: not an Ed25519 key")
    return SigningKey(key)


def read_root_key(path: Path) -> Ed25519PublicKey:
    """Raises CannotStart."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CannotStart(f"{path}: no public key; bring the platform's root.pub here: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise CannotStart(f"{path}: not an Ed25519 key")
    return key


class Node:
    """One ERCS node. Made from settings; `run` until `stop` is called."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Reads what must be there before a loop runs. Raises CannotStart, BadState, BadAudit, BadSettings."""
        self._settings = settings
        self._clock = clock or SystemClock()
        self._boot_id = boot_id()
        self._supervisor = Supervisor()
        self._stopping = asyncio.Event()
        self._failure: str | None = None
        self.metrics = Metrics()
        key, root = read_private_key(settings.key), read_root_key(settings.root_key)
        accounts = read_accounts(settings.users)
        disk = open_disk(settings)
        if self._clock.now().wall < disk.loaded.wall_seen - CLOCK_SLACK:
            raise CannotStart("the clock is behind the last time seen here: set it right before consents are judged by it")
        self._disk = disk
        self.journal = Journal(disk.state, disk.audit, disk.untold)
        self.lease = LeaseState(settings.lease)
        self.inventory = Inventory(disk.loaded.generations)
        self._watch = Watch(settings.hosts, self.inventory, self._changed)
        self._dialer = Dialer()
        outbox = Outbox(settings.node, key, secrets.token_bytes)
        self.consents = Consents(
            settings.node, root, self._clock, self._boot_id, self.journal, outbox, self.lease, self.metrics, self._resolve
        )
        self._watching = Watching(disk.loaded.reins)
        self.sessions = Sessions(
            self._clock,
            self.journal,
            self.lease,
            self.metrics,
            self._dialer,
            {host.name: host for host in settings.hosts},
            self.inventory,
            self.consents.ledger.standing,
            self._watching,
            secrets.token_bytes,
            settings.most_sessions,
        )
        self.consents.cutter = self.sessions
        self.consents.renewed = self.sessions.wake
        self.consents.begins_paused = self._watching.begin
        try:
            self.consents.restore(disk.loaded, disk.ended)
            self.desk = self._reception(settings, accounts, key)
        except (BadToken, BadRow) as error:
            raise BadState(settings.state, f"what it holds does not verify: {error}") from error
        self._rims(settings, key, outbox)

    def _reception(self, settings: Settings, accounts: Accounts, key: SigningKey) -> Desk:
        """Where operators are answered, with who was there before. Raises BadRow."""
        now, workstations = self._clock.now(), self._disk.loaded.workstations
        desk = Desk(
            node=settings.node,
            clock=self._clock,
            journal=self.journal,
            sessions=self.sessions,
            consents=self.consents,
            inventory=self.inventory,
            accounts=accounts,
            safelist=Safelist.from_rows(workstations, self._boot_id, now),
            attempts=Attempts(),
            tickets=Tickets(),
            inquiry=Inquiry(settings.node, settings.provider, key, self._clock, secrets.token_bytes),
            metrics=self.metrics,
            randomness=secrets.token_bytes,
        )
        for row in workstations:
            desk.attempts.remember(parse_address(row.address), row.account, now)
        return desk

    def _rims(self, settings: Settings, key: SigningKey, outbox: Outbox) -> None:
        """What the node speaks by, on top of what it is. Raises CannotStart."""
        try:
            self._listener = Listener(settings.operators, self.desk)
        except MissingAssets as error:
            raise CannotStart(str(error)) from error
        self._watch_desk = WatchDesk(
            settings.node,
            self._clock,
            self.journal,
            self.sessions,
            self.consents,
            self.inventory,
            self._watching,
            self.metrics,
            secrets.token_bytes,
            self._disk.loaded.watches,
        )
        self._watch_listener = None
        if settings.watch is not None:
            self._watch_listener = WatchListener(settings.watch, self._watch_desk)
            self.consents.watch_origin = settings.watch.url
        self._monitor = Monitor(settings.metrics, self.metrics, self.health, self._refresh)
        self._uplink = Uplink(
            settings.node,
            settings.mqtt,
            settings.provider,
            settings.lease_every,
            key,
            self._clock,
            self._boot_id,
            self.consents,
            outbox,
            self.metrics,
            secrets.token_bytes,
            lambda: self.journal.anchor,
            lambda: self._testimony.is_held,
        )
        self._testimony = Testimony(self.journal, outbox, self._clock, self._uplink.queue_receipt)
        self._testimony.hurry = self.consents.behind
        self.consents.delivered = self._testimony.go_on
        self._watch_desk.provider_has = self._testimony.is_had

    # -- life ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Asks the node to end: SIGTERM."""
        self._stopping.set()

    async def run(self) -> bool:
        """Serves until `stop`. Whether it ended well: False after the disk failed."""
        self.journal.start(self._disk_failed)
        try:
            await self._recover()
            try:
                await self._dialer.start()
            except DialError as error:
                raise CannotStart(f"no worker can be started: {error}") from error
            await self._monitor.start()
            await self._listener.start()
            if self._watch_listener is not None:
                await self._watch_listener.start()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._watch.run(), name="watch")]
                # a consent names a VM: none is heard before the VMs are known
                await self._watch.ready()
                tasks.append(group.create_task(self._uplink.run(), name="uplink"))
                tasks.append(group.create_task(self._tick(), name="tick"))
                self._supervisor.tell("READY=1\nSTATUS=serving")
                log.info("node %s serves operators on port %d", self._settings.node, self._settings.operators.port)
                await self._stopping.wait()
                await self._end_all()
                for task in tasks:
                    task.cancel()
        finally:
            await self._dialer.stop()
            await self.journal.stop()
        return self._failure is None

    async def _recover(self) -> None:
        """Closes the book on what a crash left open, and opens it for this run."""
        self.consents.begin(self._clock.now())
        self._watching.resume([one.consent for one in self.consents.ledger.standing(self._clock.now())], self._clock.now())
        self.journal.post(Change().workstations(self.desk.safelist.to_rows()))  # with their ends on this boot's clock
        now = self._clock.now().wall // 1_000_000
        entries = [Entry("", audit.Event.NODE_START, {"node": self._settings.node, "boot_id": self._boot_id}, now)]
        if self._disk.torn:
            entries.append(Entry("", audit.Event.TORN_TAIL, {"bytes": self._disk.torn}, now))
        for record in self._disk.open_sessions:
            facts = {"session": record.facts["session"], "reason": Ending.NODE_STOPPING.word, "recovered": True}
            entries.append(Entry(record.chain, audit.Event.SESSION_END, facts, now))
        await self.journal.write(None, *entries)
        self._testimony.go_on()

    async def _end_all(self) -> None:
        self._supervisor.tell("STOPPING=1")
        self.sessions.stopping = True
        count = self.sessions.end_all(Ending.NODE_STOPPING if self._failure is None else Ending.AUDIT_FAILED)
        log.info("node %s stops; %d sessions ended", self._settings.node, count)
        if self._failure is None:
            now = self._clock.now()
            entry = Entry("", audit.Event.NODE_STOP, {"sessions": count}, now.wall // 1_000_000)
            await self.journal.write(Change().meta("wall_seen", max(now.wall, self.consents.ledger.wall_seen)), entry)
        for channel in list(self.desk.channels):
            channel.sign_out("the node is stopping")
        self._watch_desk.sign_out(Ending.NODE_STOPPING)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._listener.stop()
                if self._watch_listener is not None:
                    await self._watch_listener.stop()
                await self._monitor.stop()
        except TimeoutError:
            log.warning("some connections did not close within %g s", STOP_SECONDS)

    def reload(self) -> None:
        """SIGHUP: takes the users and all of TLS anew. What is wrong leaves the old in force."""
        try:
            before, after = self.desk.accounts, read_accounts(self._settings.users)
        except (BadSettings, CannotStart) as error:
            log.error("users not re-read, the old ones stand: %s", error)
        else:
            self.desk.accounts = after
            changed = {
                channel.account.name
                for channel in self.desk.channels
                if channel.account is not None and after.has_changed(channel.account.name, before)
            }
            gone = changed | {name for name in self.sessions.accounts() if after.has_changed(name, before)}
            self.sessions.end_accounts(gone)
            for channel in list(self.desk.channels):
                if channel.account is not None and channel.account.name in gone:
                    channel.sign_out("the account was changed")
            log.info("users re-read: %d accounts, %d signed out", len(after), len(gone))
        try:
            self._listener.reload_tls()
            if self._watch_listener is not None:
                self._watch_listener.reload_tls()
        except (OSError, ssl.SSLError) as error:
            log.error("certificate not re-read, the old one stands: %s", error)

    # -- what happens --------------------------------------------------------------------------------------------

    def _resolve(self, resource_id: ResourceId) -> tuple[Pin, ...]:
        return tuple(Pin(vm.host, vm.uuid, vm.generation) for vm in self.inventory.find(resource_id))

    def _changed(self, change: VmChange) -> None:
        """The inventory saw something: it has changed already."""
        if isinstance(change, VmChanged | VmBefell):
            self._watch_desk.changed(Pin(change.vm.host, change.vm.uuid, change.vm.generation))
        match change:
            case VmBefell(vm, Fate.GONE):
                self.consents.end_missing(self._is_there)
                self.sessions.end_domain(Pin(vm.host, vm.uuid, vm.generation), Ending.VM_GONE)
                self.journal.post(Change().generation(vm.host, vm.uuid, vm.generation + 1))
            case VmBefell(vm, Fate.STOPPED):
                self.sessions.end_domain(Pin(vm.host, vm.uuid, vm.generation), Ending.VM_STOPPED)
            case HostDown(host, why):
                log.warning("host %s is down: %s", host, why)
            case HostUp(host):
                log.info("host %s is up", host)
                # what was undefined while nobody watched left no event
                self.consents.end_missing(self._is_there)

    def _is_there(self, pin: Pin) -> bool:
        """False where the host's domains are known and the one that was pinned is not among them."""
        vm = self.inventory.get(pin.host, pin.uuid)
        if vm is None:
            return not self.inventory.host_up(pin.host)
        return vm.generation == pin.generation

    def _disk_failed(self, error: Exception) -> None:
        log.critical("the disk refused a write: every session is cut and the node stops: %s", error)
        self._failure = str(error)
        self.sessions.stopping = True
        self.lease.drop()
        self.sessions.end_all(Ending.AUDIT_FAILED)
        self._stopping.set()

    async def _tick(self) -> None:
        """Looks at what time alone ends. Its own lateness shows the loop's; it also feeds systemd's watchdog."""
        noted = fed = time.monotonic()
        while True:
            due = time.monotonic() + TICK
            await asyncio.sleep(TICK)
            self.metrics.loop_lag.set(max(0.0, time.monotonic() - due))
            now = self._clock.now()
            self.consents.tick(now)
            self.desk.tick(now)
            self.sessions.tick(now)
            self._watch_desk.tick(now)
            self.desk.tickets.sweep(now)
            for address, account in self.desk.safelist.sweep(now):
                self.sessions.end_workstation(account, str(address))
            if self.journal.oldest() > DISK_PATIENCE:
                self.sessions.end_all(Ending.AUDIT_FAILED)
            if time.monotonic() - noted > NOTE_TIME:
                noted = time.monotonic()
                self.consents.note_time(now)
                self._watch_desk.note(now)
            if self._supervisor.watchdog is not None and time.monotonic() - fed > self._supervisor.watchdog / 3:
                fed = time.monotonic()
                self._supervisor.tell("WATCHDOG=1")

    # -- what is told --------------------------------------------------------------------------------------------

    def health(self) -> list[str]:
        """What is amiss, in words for whoever runs the node."""
        now = self._clock.now()
        amiss = []
        if not self.lease.is_open(now):
            amiss.append("no fresh lease: the provider is not heard, nothing opens")
        amiss += [f"host {host.name} is down" for host in self._settings.hosts if not self._watch.host_up(host.name)]
        if self.journal.oldest() > 1.0:
            amiss.append("the disk is slow")
        if self.journal.crowded:
            amiss.append("the provider does not take the records: operators wait")
        return amiss

    def _refresh(self) -> None:
        now = self._clock.now()
        age = self.lease.age(now)
        self.metrics.lease_age.set(-1 if age is None else age)
        self.metrics.hosts.set(len(self._settings.hosts))
        self.metrics.hosts_up.set(sum(self._watch.host_up(host.name) for host in self._settings.hosts))
        self.metrics.tcp_displays.set(sum(vm.tcp_display for vm in self.inventory.vms))
        self.metrics.consents.set(len(self.consents.ledger.standing(now)))
        self.metrics.disk_wait.set(self.journal.oldest())


def read_accounts(path: Path) -> Accounts:
    """Raises BadSettings, CannotStart."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"{path}: no users file: {error}") from error
    return Accounts.parse(text, str(path))
