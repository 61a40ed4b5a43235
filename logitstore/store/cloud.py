"""Stores at URLs: the objects of a bucket, or of this process's memory, through obstore (extra ``cloud``).

Puts are atomic, as object stores make them. Creating and replacing are conditional puts (If-None-Match: *, and If-Match
with the ETag), decided by the object store in one step. Endpoint and credentials come from the environment.

Every object is read and written whole, by one request, and nothing is asked of it before. A request is sent again where
the server is busy or broken (408, 429, 5xx) or its answer did not come, up to :data:`TRIES` times, after waits that
double and are drawn at random; while a server asks to slow down, all requests of the process wait. An answer may be
lost after the request has been done: a create that then meets its own object has made it, and so has a replace.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from logitstore.errors import CorruptStoreError, MissingExtraError, StoreError, UsageError
from logitstore.notes import note
from logitstore.store.names import COMMITS, check_name, most_bytes
from logitstore.store.requests import count

if TYPE_CHECKING:
    from obstore.store import MemoryStore

#: Requests under way at once, of all stores of a process.
REQUESTS = 16
#: How often a request is sent at most.
TRIES = 10
_PAGE = 1000  # names that a listing gives at a time
_MOST_KEPT = 1 << 26  # bytes of commits, which are read again and again
_FIRST_TRIES = 4  # of a server that has never answered, whose address may be wrong
_CREDENTIAL_TRIES = 2  # of the machine's own role, which most machines do not have
_TOLD_TRIES = 4  # from then on people are told of it
_SECONDS, _BUSY_SECONDS, _MOST_SECONDS = 0.1, 1.0, 20.0  # before the second try, of a busy server, before any
_BUSY = re.compile(r"status code: (?:429|503)\b|<Code>(?:SlowDown|Throttling|RequestLimitExceeded|TooManyRequests)")
_PASSING = re.compile(
    r"status code: (?:408|429|50[02346789]|5[1-9]\d)\b|<Code>(?:RequestTimeout|ConditionalRequestConflict)"
    r"|kind: (?:Connect|Timeout|Interrupted|Request)\b"
)
_NO_CREDENTIALS = re.compile(
    r"/latest/api/token|computeMetadata|/latest/meta-data/|Missing\w*(Key|Token)|Missing \w+Key"
)

_memory: dict[str, MemoryStore] = {}
_lock = threading.Lock()

_S3_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIALS = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gs": "GOOGLE_APPLICATION_CREDENTIALS"}
_KEPT = "; every committed block is intact, and the same command goes on from there"

Answer = TypeVar("Answer")


class _NotAgainError(Exception):
    """A request has failed, and what it went by no longer holds."""


class _Sending:
    """Sends a request, counts how often, and sends it again only while something holds."""

    def __init__(self, send: Callable[[], Any], still: Callable[[], bool]) -> None:
        self._send, self._still, self.tries = send, still, 0

    def __call__(self) -> Any:
        self.tries += 1
        if self.tries > 1 and not self._still():
            raise _NotAgainError
        return self._send()


@dataclass
class _Pause:
    """Until when no request is sent, by the clock of :func:`time.monotonic`: a server has asked to slow down."""

    until: float = 0.0

    def wait(self) -> None:
        """Wait for the end of it, and a little more, so that not all go on at the same moment."""
        left = self.until - time.monotonic()
        if left > 0:
            time.sleep(left * random.uniform(1.0, 1.25))


_pause = _Pause()


class ObjectStorage:
    """The objects below a URL: ``s3://BUCKET/PREFIX``, ``gs://BUCKET/PREFIX`` or ``memory://NAME``.

    All that give the same ``memory://NAME`` within a process share its objects, which live as long as the process.

    :raises UsageError: a URL without a bucket, or with a prefix that no object can have; an endpoint that is no URL.
    :raises StoreError: half of a pair of credentials, or a file of them that cannot be read.
    :raises MissingExtraError: obstore is not installed.
    """

    def __init__(self, location: str) -> None:
        self._scheme, self._bucket, prefix = _parts(location)
        self._location = f"{self._scheme}://{self._bucket}" + (f"/{prefix}" if prefix else "")
        try:
            import obstore
            from obstore import exceptions
        except ImportError as error:
            raise MissingExtraError("obstore", "cloud", f"a store at {self._scheme}://") from error
        self._api: Any = obstore
        self._errors: Any = exceptions
        self._unmet = (exceptions.AlreadyExistsError, exceptions.PreconditionError)
        self._begin()
        self._store = self._open(prefix)

    def _begin(self) -> None:
        self._answered = False  # by the server, once
        self._commits: dict[str, tuple[str, bytes]] = {}  # version and content
        self._kept_bytes = 0

    def __reduce__(self) -> Any:
        return ObjectStorage, (self._location,)

    @property
    def location(self) -> str:
        return self._location

    def get(self, name: str) -> bytes:
        return self._sent("gets", "read", name, lambda: self._read(name)[0])

    def get_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        return _pool().map(self._get_if_there, names)

    def contents(
        self, prefix: str = "", stem: str = "", wanted: Callable[[str], bool] = lambda name: True
    ) -> Iterator[tuple[str, bytes | None]]:
        versions = {name: version for name, _, version in self._found(prefix, stem) if wanted(name)}
        yield from zip(versions, _pool().map(self._get_listed, versions, versions.values()), strict=True)

    def put(self, name: str, content: bytes, still: Callable[[], bool] = lambda: True) -> bool:
        put = functools.partial(self._api.put, self._store, name, content, use_multipart=False)
        try:
            self._keep(name, content, self._sent("puts", "write", name, _Sending(put, still)))
        except _NotAgainError:
            return self._get_if_there(name) == content  # a try whose answer was lost has written it
        return True

    def put_many(self, contents: Mapping[str, bytes]) -> None:
        for _ in _pool().map(self.put, contents.keys(), contents.values()):
            pass

    def create_many(self, contents: Mapping[str, bytes]) -> list[str]:
        made = list(_pool().map(self.create, contents.keys(), contents.values()))
        return [name for name, new in zip(contents, made, strict=True) if not new]

    def create(self, name: str, content: bytes, still: Callable[[], bool] = lambda: True) -> bool:
        put = _Sending(functools.partial(self._api.put, self._store, name, content, mode="create"), still)
        try:
            self._keep(name, content, self._sent("puts", "write", name, put))
        except (*self._unmet, _NotAgainError):
            return put.tries > 1 and self._get_if_there(name) == content  # a try whose answer was lost has made it
        return True

    def replace(self, name: str, content: bytes, expected: bytes) -> bool:
        try:
            found, version = self._sent("gets", "replace", name, lambda: self._read(name))
            if found != expected:
                return False
            put = functools.partial(self._api.put, self._store, name, content, mode=version)
            self._sent("puts", "replace", name, put)
        except FileNotFoundError:
            return False
        except self._unmet:
            return self._get_if_there(name) == content  # a try whose answer was lost has made it
        return True

    def delete(self, name: str, still: Callable[[], bool] = lambda: True) -> None:
        remove = functools.partial(self._api.delete, self._store, name)
        with contextlib.suppress(FileNotFoundError, _NotAgainError):
            self._sent("deletes", "delete", name, _Sending(remove, still))

    def names(self, prefix: str = "", stem: str = "") -> Iterator[str]:
        return iter([name for name, _, _ in self._found(prefix, stem)])

    def sizes(self, prefix: str = "") -> dict[str, int]:
        return {name: size for name, size, _ in self._found(prefix)}

    def size(self, name: str) -> int:
        return int(self._sent("heads", "read", name, lambda: self._api.head(self._store, name))["size"])

    def sweep_scratch(self) -> None:
        """Nothing: an object store holds nothing half-written."""

    def _read(self, name: str) -> tuple[bytes, dict[str, Any]]:
        """An object's bytes, and its version, for a conditional put."""
        found = self._api.get(self._store, name)
        most = most_bytes(name)
        if found.meta["size"] > most:
            raise CorruptStoreError(
                f"{self._location}: {name} has {found.meta['size']:,} bytes, and such an object at most {most:,}; "
                "remove it, or restore it from a copy"
            )
        return bytes(found.bytes()), {
            key: found.meta[key] for key in ("e_tag", "version") if found.meta[key] is not None
        }

    def _get_if_there(self, name: str) -> bytes | None:
        try:
            return self.get(name)
        except FileNotFoundError:
            return None

    def _get_listed(self, name: str, version: str | None) -> bytes | None:
        """An object as a listing found it, or as it is now; commits that are as they were are not read again."""
        if version is not None and (kept := self._commits.get(name)) is not None and kept[0] == version:
            return kept[1]
        try:
            content, now = self._sent("gets", "read", name, lambda: self._read(name))
        except FileNotFoundError:
            return None
        self._keep(name, content, now)
        return content

    def _keep(self, name: str, content: bytes, version: Mapping[str, Any]) -> None:
        """Keep a commit in memory, where its version is known and there is room."""
        tag = version.get("e_tag")
        if tag is None or not name.startswith(f"{COMMITS}/"):
            return
        with _lock:
            before = self._commits.pop(name, None)
            self._kept_bytes += len(content) - (0 if before is None else len(before[1]))
            if self._kept_bytes <= _MOST_KEPT:
                self._commits[name] = (tag, content)
            else:
                self._kept_bytes -= len(content)

    def _found(self, prefix: str, stem: str = "") -> list[tuple[str, int, str | None]]:
        """The objects in a folder whose names begin with a stem there, sorted: name, bytes, version."""
        begin = f"{prefix}/{stem}" if prefix else stem
        found, ordered = [], self._scheme == "s3"
        for page in self._pages(prefix, begin if stem else None):
            found += [each for each in page if each[0].startswith(begin)]
            if ordered and stem and page and not page[-1][0].startswith(begin):
                break
        return sorted(found)

    def _pages(self, prefix: str, after: str | None) -> Iterator[list[tuple[str, int, str | None]]]:
        """What lies in a folder, page by page; only names that come after one. A page that fails is asked for again."""
        listing: Any = None
        last = after

        def page() -> Any:
            nonlocal listing
            try:
                if listing is None:
                    listing = iter(self._api.list(self._store, prefix or None, offset=last, chunk_size=_PAGE))
                return next(listing, None)
            except BaseException:
                listing = None
                raise

        while (found := self._sent("listings", "list", prefix or "the objects", page)) is not None:
            yield [(each["path"], int(each["size"]), each["e_tag"]) for each in found]
            if len(found) < _PAGE:
                return
            last = max(each["path"] for each in found)
        if last != after and self._scheme != "memory":
            count("listings", -1)  # the last page was full, and said to be the last: nobody was asked for another

    def _open(self, prefix: str) -> Any:
        from obstore import store

        if self._scheme == "memory":
            with _lock:
                return _memory.setdefault(self._location, store.MemoryStore())
        if self._scheme == "s3":
            _check_endpoint()
        kind: Any = store.S3Store if self._scheme == "s3" else store.GCSStore
        try:
            return kind(self._bucket, prefix=prefix or None, retry_config={"max_retries": 0})
        except (self._errors.BaseError, ValueError) as error:
            raise self._explained("open", "the bucket", str(error)) from error

    def _sent(self, kind: str, doing: str, name: str, send: Callable[[], Answer]) -> Answer:
        """What a request gives; sent again while that may help.

        :param kind: what it counts as, see :class:`logitstore.store.requests.Requests`. :param send: sends it once.
        :raises FileNotFoundError: there is no such object; and conditions that are not met, as obstore raises them.
        :raises StoreError: any other error, as one clear line.
        """
        if doing != "list":
            check_name(name, self._location)
        if self._scheme != "memory":
            _check_process()
        began, tries = time.monotonic(), 0
        while True:
            _pause.wait()
            tries += 1
            if self._scheme != "memory":
                count(kind)
                if tries > 1:
                    count("again")
            try:
                answer = send()
            except FileNotFoundError as error:
                if _without_bucket(str(error)):
                    raise self._explained(doing, name, str(error)) from error
                self._answered = True
                raise FileNotFoundError(f"{self._location} holds no {name}") from None
            except (self._errors.BaseError, NotImplementedError) as error:
                text = str(error)
                if _PASSING.search(text) is None or tries >= self._most_tries(text):
                    if isinstance(error, self._unmet):
                        raise
                    spent = f"{tries} tries in {time.monotonic() - began:.0f} s" if tries > 1 else ""
                    raise self._explained(doing, name, text, spent) from error
                self._wait(text, tries)
            else:
                self._answered = True
                return answer

    def _most_tries(self, text: str) -> int:
        """How often a request is sent that failed with this."""
        if not self._answered and _NO_CREDENTIALS.search(text):
            return _CREDENTIAL_TRIES
        return TRIES if self._answered or "status code:" in text else _FIRST_TRIES

    def _wait(self, text: str, tries: int) -> None:
        """Wait before a request is sent again: at random between half and all of a time that doubles every time."""
        busy = _BUSY.search(text) is not None
        seconds = min(_MOST_SECONDS, (_BUSY_SECONDS if busy else _SECONDS) * 2 ** (tries - 1)) * random.uniform(0.5, 1)
        if tries == _TOLD_TRIES:
            note(f"{self._location}: {_reason(text)}; sending it again, up to {TRIES} times")
        if busy:
            _pause.until = max(_pause.until, time.monotonic() + seconds)
        else:
            time.sleep(seconds)

    def _explained(self, doing: str, name: str, text: str, spent: str = "") -> StoreError:
        """The error of a request that came to nothing.

        :param text: what obstore says. :param spent: how often it was sent, in words.
        """
        where, credentials = self._location, _CREDENTIALS.get(self._scheme, "the URL")
        to_check = f"AWS_ENDPOINT_URL, AWS_REGION, {credentials}" if self._scheme == "s3" else credentials
        server = re.search(r"https?://[^/\s]+", text)
        at = f" at {server[0]}" if server else ""
        reason = ", ".join(filter(None, (_reason(text), spent)))
        kept = _KEPT if doing in ("write", "replace") else ""
        if _without_bucket(text):
            return StoreError(f"there is no bucket {self._bucket!r}{at}; create it, or check {where} and {to_check}")
        if not self._answered and _NO_CREDENTIALS.search(text):
            return StoreError(f"no credentials for {where} were found; set {credentials}")
        if re.search(r"40[13] (Forbidden|Unauthorized)", text):
            return StoreError(
                f"the server{at} refused to {doing} {name} of {where} ({reason}); check {to_check}, and that "
                "they may list, read, write and delete there"
            )
        if re.search(r"kind: (Connect|Timeout|Interrupted|Request)\b", text):
            return StoreError(f"{where}: no answer{at} ({reason}); check the network and {to_check}{kept}")
        if _PASSING.search(text):
            busy = "is too busy" if _BUSY.search(text) else "is out of order"
            return StoreError(
                f"{where}: the server{at} {busy} to {doing} {name} ({reason}); try again later, or with fewer "
                f"processes at once{kept}"
            )
        return StoreError(f"cannot {doing} {name} of {where}: {reason}; check {to_check}{kept}")


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(REQUESTS, thread_name_prefix="objects")


@functools.cache
def _first_process() -> int:
    return os.getpid()


def _check_process() -> None:
    """Refuse a forked copy of a process that has used the network: obstore's threads are not in it, and it would wait.

    :raises StoreError: this is such a process.
    """
    if _first_process() != os.getpid():
        raise StoreError(
            "a store at a URL was opened before this process was forked, and cannot be read in the copy; start worker "
            "processes with the method 'spawn', or read what they need before they start"
        )


def _parts(location: str) -> tuple[str, str, str]:
    """Scheme, bucket and prefix of a URL; the prefix is taken literally."""
    scheme, rest = location.split("://", 1)
    scheme = scheme.lower()
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
        shown = "what stands there" if "@" in bucket else repr(bucket)
        raise UsageError(
            f"a {scheme}:// URL needs the name of a bucket, and {shown} is none; give {scheme}://BUCKET/PREFIX, "
            "and credentials in environment variables"
        )
    if prefix and any(segment in ("", ".", "..") for segment in prefix.split("/")):
        raise UsageError(f"{location} holds an empty, '.' or '..' part; give {scheme}://BUCKET/PREFIX without them")
    return scheme, bucket, prefix


def _check_endpoint() -> None:
    for name in _S3_ENDPOINT:
        endpoint = os.environ.get(name, "")
        if endpoint and not re.match(r"https?://[^/\s]+", endpoint):
            raise UsageError(f"{name} is {endpoint!r}; it must begin with https://, or http:// and a host")
        allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "on", "yes", "y")
        if endpoint.startswith("http://") and not allowed:
            raise UsageError(
                f"{name} is {endpoint}, which is not encrypted; use https://, or set AWS_ALLOW_HTTP=true to allow it"
            )


def _without_bucket(text: str) -> bool:
    return "NoSuchBucket" in text or "bucket does not exist" in text


def _reason(text: str) -> str:
    """Why a request failed, in the server's words where it gave some, else in the operating system's."""
    code, message = re.search(r"<Code>([^<]+)</Code>", text), re.search(r"<Message>([^<]+)</Message>", text)
    if code and message:
        return f"{code[1]}: {message[1]}".rstrip(".")
    first = " ".join(text.split("\n\nDebug source", 1)[0].split())
    if cause := re.search(r'message: "([^"]+)"|error: "([^"]+)"', text):
        return cause[1] or cause[2]
    if "kind: Timeout" in text:
        return "it took longer than a request may, which AWS_TIMEOUT changes"
    if "error sending request" in first:
        return "the connection broke off"
    return first.rsplit(" - ", 1)[-1][:300].rstrip(".")
