"""Claims: builders that share a store divide its shards among them.

A claim is an object that says who works on a shard and until when; its holder renews it. It is no part of the store's
content. It is made, renewed and taken over in one step (conditional puts on an object store, locks in a folder), and so
one builder alone gets each. Builders that hear the same write the same bytes, so a claim mostly saves work; what could
do harm to another builder (a commit, an object over one that is there, a removal) is done right after :meth:`keep` has
said that the claim holds for half a lease yet.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
import threading
import time
from typing import Self

import msgspec

from logitstore.errors import CorruptStoreError, StoreError
from logitstore.notes import note
from logitstore.store.names import CLAIMS, claimed_shard, shown
from logitstore.store.storage import LocalStorage, Storage, process_exists

FOLDER = CLAIMS
LEASE_SECONDS = 60.0
_WAIT_SECONDS = 0.5
_MOST_AHEAD_SECONDS = 3600.0  # of another machine's clock, for one who looks but once


class Claim(msgspec.Struct, frozen=True):
    """Who holds a shard: ``host``, process ``pid``, a random ``token``; ``expires`` in seconds since the epoch."""

    host: str
    pid: int
    token: str
    expires: float

    @property
    def live(self) -> bool:
        """Whether the claim still holds: neither expired nor held by a process of this host that is gone.

        One that expires in the far future holds nothing: no builder claims for long, and each renews what it has.
        """
        if not 0 < self.expires - time.time() <= LEASE_SECONDS + _MOST_AHEAD_SECONDS:
            return False
        return self.host != socket.gethostname() or process_exists(self.pid)


class Claimer:
    """Takes, renews and drops the claims of one builder. A context manager: renewal stops and claims go at its end.

    Another's claim holds until it expires, and no longer than a lease by this builder's own clock if it is not renewed
    meanwhile, whatever it says of its end.
    """

    def __init__(self, storage: Storage, lease_seconds: float = LEASE_SECONDS) -> None:
        self._storage = storage
        self._lease = lease_seconds
        self._token = secrets.token_hex(8)
        self._held: dict[str, bytes] = {}  # claims as they were last written
        self._seen: dict[str, tuple[bytes, float]] = {}  # others' claims, and since when they are as they are
        self._waits_for: dict[str, Claim] = {}  # others' claims that are in the way
        self._idle = 0  # how often it has waited since it has taken one
        self._told = False  # that one could not be removed
        self._locks: dict[str, threading.Lock] = {}  # of each claim, so that none waits for requests of another
        self._stop = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="claims", daemon=True)

    def __enter__(self) -> Self:
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._renewer.join()
        with contextlib.suppress(StoreError):  # what cannot be dropped expires
            for name in sorted(self._held):
                self._delete(name)

    def take(self, shard: int) -> bool:
        """Claim a shard; False where another builder holds it."""
        name = f"{FOLDER}/{shard:06d}.json"
        content = self._content()
        with self._lock(name):
            self._held[name] = content  # first, so that an interrupt at any moment leaves no claim behind
            taken = self._take(name, content)
            if taken and self._left(content) <= self._lease / 2:  # that took long: it may have expired by now
                taken = self._sure(name)
            if not taken:
                self._held.pop(name, None)
        self._idle = 0 if taken else self._idle
        return taken

    def keep(self, shard: int) -> bool:
        """Whether a shard is this builder's, and for half a lease at least: asked right before what a claim guards."""
        name = f"{FOLDER}/{shard:06d}.json"
        with self._lock(name):
            try:
                return self._sure(name)
            except CorruptStoreError:  # no file that a builder wrote, as when it was taken
                return True

    def idle_seconds(self) -> float:
        """How long to wait before others' claims are looked at again; at a URL longer every time, until one is had."""
        times = 1 if isinstance(self._storage, LocalStorage) else min(16, 2**self._idle)
        self._idle += 1
        return times * _WAIT_SECONDS

    def waits(self) -> str:
        """One of the claims that are in the way, in words, and what to do where its builder is gone."""
        for name, claim in sorted(self._waits_for.items()):
            return (
                f", as {name} of {self._storage.location} by process {shown(claim.pid)} of {shown(claim.host)}; delete "
                f"it if that is gone, or wait for at most {LEASE_SECONDS:.0f} s"
            )
        return ""

    def drop(self, shard: int) -> None:
        """Give a shard up, done or not. A claim that cannot be removed expires."""
        name = f"{FOLDER}/{shard:06d}.json"
        with self._lock(name):
            try:
                self._delete(name)
            except StoreError as error:
                if not self._told:
                    note(f"{name} could not be removed, and expires within {self._lease:.0f} s: {error}")
                self._told = True
            finally:
                self._held.pop(name, None)

    def _lock(self, name: str) -> threading.Lock:
        return self._locks.setdefault(name, threading.Lock())

    def _take(self, name: str, content: bytes) -> bool:
        if name not in self._waits_for and self._storage.create(name, content):
            return True
        try:
            found = self._storage.get(name)
        except FileNotFoundError:  # just dropped
            return self._waits_for.pop(name, None) is not None and self._storage.create(name, content)
        except CorruptStoreError:  # no file that a builder wrote: it holds nobody up
            return True
        holder = _decode(found)
        if holder is not None and holder.live and holder.token != self._token and not self._is_old(name, found):
            self._waits_for[name] = holder
            return False
        self._waits_for.pop(name, None)
        return self._storage.replace(name, content, found)

    def _is_old(self, name: str, found: bytes) -> bool:
        """Whether a claim has stood as it is for a whole lease, as this builder saw it."""
        now = time.monotonic()
        content, since = self._seen.get(name, (b"", now))
        if content != found:
            since = now
        self._seen[name] = (found, since)
        return now - since >= LEASE_SECONDS

    def _delete(self, name: str) -> None:
        """Remove a claim, where it holds: else it expires, or is another's by now, or is gone."""
        with contextlib.suppress(CorruptStoreError):
            if self._sure(name):
                self._storage.delete(name, functools.partial(self._sure, name))  # looked at before each further try

    def _sure(self, name: str) -> bool:
        """Whether a claim holds for half a lease at least; renewed where that is not certain from reading it."""
        written = self._held.get(name)
        if written is None:
            return False
        if self._left(written) > 0.75 * self._lease and next(iter(self._storage.get_many([name]))) == written:
            return self._left(written) > self._lease / 2
        return self._renewed(name) and self._left(self._held[name]) > self._lease / 2

    def _renewed(self, name: str) -> bool:
        """Whether a claim could be renewed; it is no longer held where not."""
        content, written = self._content(), self._held[name]
        if self._storage.replace(name, content, written):
            self._held[name] = content
            return True
        found = next(iter(self._storage.get_many([name])))  # our own, where the answer to an earlier request was lost
        holder = None if found is None else _decode(found)
        ours = found is not None and holder is not None and holder.token == self._token
        if found is not None and ours and self._storage.replace(name, content, found):
            self._held[name] = content
            return True
        del self._held[name]
        return False

    def _left(self, content: bytes) -> float:
        return msgspec.json.decode(content, type=Claim).expires - time.time()

    def _content(self) -> bytes:
        claim = Claim(socket.gethostname(), os.getpid(), self._token, time.time() + self._lease)
        return msgspec.json.encode(claim)

    def _renew(self) -> None:
        while not self._stop.wait(self._lease / 3):
            for name in list(self._held):
                with self._lock(name), contextlib.suppress(StoreError):  # the build will meet it; the claim lasts yet
                    if name in self._held:
                        self._renewed(name)


def read(storage: Storage, name: str) -> Claim | None:
    """The claim in an object; None where there is none or it is unreadable, which counts as expired."""
    try:
        return _decode(storage.get(name))
    except (FileNotFoundError, CorruptStoreError):
        return None


def _decode(content: bytes) -> Claim | None:
    try:
        return msgspec.json.decode(content, type=Claim)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None


def live_claims(storage: Storage) -> dict[int, Claim]:
    """The live claims, by shard, rising."""
    found = {}
    for name in storage.names(FOLDER):
        shard = claimed_shard(name)
        if shard is not None and (claim := read(storage, name)) is not None and claim.live:
            found[shard] = claim
    return found


def claimed_shards(storage: Storage) -> list[int]:
    """Shards under a live claim, rising."""
    return list(live_claims(storage))
