"""Stores at URLs: the objects of a bucket, or of this process's memory, through obstore (extra ``cloud``).

Puts are atomic, as object stores make them. Creating and replacing are conditional puts (If-None-Match: *, and If-Match
with the ETag), decided by the object store in one step. Endpoint and credentials come from the environment. Requests
are repeated as obstore does by itself: up to 10 times, for at most 3 minutes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from logitstore.errors import CorruptStoreError, MissingExtraError, StoreError, UsageError
from logitstore.store.names import check_name, most_bytes

if TYPE_CHECKING:
    from obstore.store import MemoryStore

#: Requests under way at once, of all stores of a process.
REQUESTS = 16
_PAGE = 1000  # names that a listing gives at a time

_memory: dict[str, MemoryStore] = {}
_lock = threading.Lock()

_S3_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIALS = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gs": "GOOGLE_APPLICATION_CREDENTIALS"}
_KEPT = "; every committed block is intact, and the same command goes on from there"


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
        self._store = self._open(prefix)

    def __reduce__(self) -> Any:
        return ObjectStorage, (self._location,)

    @property
    def location(self) -> str:
        return self._location

    def get(self, name: str) -> bytes:
        with self._request("read", name):
            found = self._api.get(self._store, name)
            most = most_bytes(name)
            if found.meta["size"] > most:
                raise CorruptStoreError(
                    f"{self._location}: {name} has {found.meta['size']:,} bytes, and such an object at most {most:,}; "
                    "remove it, or restore it from a copy"
                )
            return bytes(found.bytes())

    def get_many(self, names: Sequence[str]) -> Iterator[bytes | None]:
        return _pool().map(self._get_if_there, names)

    def put(self, name: str, content: bytes) -> None:
        with self._request("write", name):
            self._api.put(self._store, name, content)

    def put_many(self, contents: Mapping[str, bytes]) -> None:
        for _ in _pool().map(self.put, contents.keys(), contents.values()):
            pass

    def create_many(self, contents: Mapping[str, bytes]) -> list[str]:
        made = list(_pool().map(self.create, contents.keys(), contents.values()))
        return [name for name, new in zip(contents, made, strict=True) if not new]

    def create(self, name: str, content: bytes) -> bool:
        try:
            with self._request("write", name):
                self._api.put(self._store, name, content, mode="create")
        except self._unmet:
            return False
        return True

    def replace(self, name: str, content: bytes, expected: bytes) -> bool:
        try:
            with self._request("replace", name):
                found = self._api.get(self._store, name)
                if bytes(found.bytes()) != expected:
                    return False
                version = {key: found.meta[key] for key in ("e_tag", "version") if found.meta[key] is not None}
                self._api.put(self._store, name, content, mode=version)
        except FileNotFoundError:
            return False
        except self._unmet:
            return self._get_if_there(name) == content  # a request that was repeated can meet its own success
        return True

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._request("delete", name):
            self._api.delete(self._store, name)

    def names(self, prefix: str = "", stem: str = "") -> Iterator[str]:
        begin = f"{prefix}/{stem}" if prefix else stem
        found = []
        for name, _ in self._list(prefix, begin if stem else None):
            if name.startswith(begin):
                found.append(name)
            elif self._scheme == "s3":  # whose listings are in order
                break
        return iter(sorted(found))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        return dict(sorted(self._list(prefix)))

    def size(self, name: str) -> int:
        with self._request("read", name):
            return int(self._api.head(self._store, name)["size"])

    def sweep_scratch(self) -> None:
        """Nothing: an object store holds nothing half-written."""

    def _get_if_there(self, name: str) -> bytes | None:
        try:
            return self.get(name)
        except FileNotFoundError:
            return None

    def _list(self, prefix: str, after: str | None = None) -> Iterator[tuple[str, int]]:
        """Names and sizes of the objects in a folder; only those whose name comes after one."""
        with self._request("list", prefix or "the objects"):
            for page in self._api.list(self._store, prefix or None, offset=after, chunk_size=_PAGE):
                yield from ((found["path"], int(found["size"])) for found in page)

    def _open(self, prefix: str) -> Any:
        from obstore import store

        if self._scheme == "memory":
            with _lock:
                return _memory.setdefault(self._location, store.MemoryStore())
        if self._scheme == "s3":
            _check_endpoint()
        kind: Any = store.S3Store if self._scheme == "s3" else store.GCSStore
        try:
            return kind(self._bucket, prefix=prefix or None)
        except (self._errors.BaseError, ValueError) as error:
            raise self._explained("open", "the bucket", str(error)) from error

    @contextlib.contextmanager
    def _request(self, doing: str, name: str) -> Iterator[None]:
        """Around requests: FileNotFoundError and unmet conditions as they are, any other error as one clear line."""
        if doing != "list":
            check_name(name, self._location)
        if self._scheme != "memory":
            _check_process()
        try:
            yield
        except self._unmet:
            raise
        except FileNotFoundError as error:
            if _without_bucket(str(error)):
                raise self._explained(doing, name, str(error)) from error
            raise FileNotFoundError(f"{self._location} holds no {name}") from None
        except (self._errors.BaseError, NotImplementedError) as error:
            raise self._explained(doing, name, str(error)) from error

    def _explained(self, doing: str, name: str, text: str) -> StoreError:
        where, credentials = self._location, _CREDENTIALS.get(self._scheme, "the URL")
        to_check = f"AWS_ENDPOINT_URL, AWS_REGION, {credentials}" if self._scheme == "s3" else credentials
        server = re.search(r"https?://[^/\s]+", text)
        at = f" at {server[0]}" if server else ""
        kept = _KEPT if doing in ("write", "replace") else ""
        if _without_bucket(text):
            return StoreError(f"there is no bucket {self._bucket!r}{at}; create it, or check {where} and {to_check}")
        if re.search(r"latest/api/token|computeMetadata|meta-data|Missing\w*(Key|Token)|Missing \w+Key", text):
            return StoreError(f"no credentials for {where} were found; set {credentials}")
        if re.search(r"40[13] (Forbidden|Unauthorized)", text):
            return StoreError(
                f"the server{at} refused to {doing} {name} of {where} ({_reason(text)}); check {to_check}, and that "
                "they may list, read, write and delete there"
            )
        if re.search(r"kind: (Connect|Timeout|Interrupted|Request)\b", text):
            return StoreError(f"{where}: no answer{at} ({_reason(text)}); check the network and {to_check}{kept}")
        return StoreError(f"cannot {doing} {name} of {where}: {_reason(text)}; check {to_check}{kept}")


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
    cause = re.search(r'message: "([^"]+)"|error: "([^"]+)"', text)
    retries = re.search(r"after (\d+) retries", first)
    if cause:
        found = cause[1] or cause[2]
        return found + (f", after {retries[1]} retries" if retries else "")
    return first.rsplit(" - ", 1)[-1][:300].rstrip(".")
