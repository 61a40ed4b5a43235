"""Stores on the web, read-only: on any web server (``https://…``) and on the Hugging Face hub (``hf://datasets/…``).

Objects come through obstore (extra ``cloud``). Plain HTTP cannot list what there is, so a store on a web server has one
more object, ``listing.json``, which ``logitstore export --format listing`` writes. The hub lists by itself; what is
read there is of one revision, the one that the name stood for when the store was opened.
"""

from __future__ import annotations

import functools
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from logitstore.errors import CorruptStoreError, MissingExtraError, NotAStoreError, StoreError, UsageError
from logitstore.store.cloud import ObjectStorage
from logitstore.store.format.basis import BASIS
from logitstore.store.format.manifest import ROOT
from logitstore.store.names import BLOCKS, CLIPS, COMMITS, LISTING, check_name, most_bytes

_OWN = (ROOT, BASIS, BLOCKS, CLIPS, COMMITS)
_MOST_LISTING = 1 << 30
_MOST_PAGES = 100_000
_TIMEOUT = 60  # seconds
_HUB = "https://huggingface.co"
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")


class Listing(msgspec.Struct, forbid_unknown_fields=True):
    """The form of ``listing.json``: ``objects`` has the bytes of each object of a store by its name."""

    objects: dict[str, int]


@dataclass(frozen=True)
class _Place:
    """Where objects lie: ``base`` is the URL before their names, ``headers`` go with every request.

    ``tree`` is the URL that lists a dataset of the hub, None elsewhere; ``folder`` where the store lies in it.
    """

    base: str
    headers: dict[str, str]
    tree: str | None = None
    folder: str = ""


class WebStorage(ObjectStorage):
    """The objects below ``https://HOST/PATH``, or below ``hf://datasets/OWNER/NAME[@REVISION]/PATH``. Read-only.

    A private dataset of the hub is read with the token in HF_TOKEN; HF_ENDPOINT names another hub.

    :raises UsageError: a URL of another form, or one that is not encrypted and leads to another machine.
    :raises StoreError: the hub does not answer, or has no such dataset or revision.
    :raises MissingExtraError: obstore is not installed.
    """

    def __init__(self, location: str, place: _Place | None = None) -> None:
        self._location = location.rstrip("/")
        self._scheme = location.split("://", 1)[0].lower()
        self._bucket = ""
        try:
            import obstore
            from obstore import exceptions, store
        except ImportError as error:
            raise MissingExtraError("obstore", "cloud", f"a store at {self._scheme}://") from error
        self._api: Any = obstore
        self._errors: Any = exceptions
        self._unmet = (exceptions.AlreadyExistsError, exceptions.PreconditionError)
        self._place = place or (_on_hub(self._location) if self._scheme == "hf" else _on_server(self._location))
        options: Any = {"allow_http": True, "default_headers": self._place.headers}
        self._store = store.HTTPStore.from_url(
            self._place.base, client_options=options, retry_config={"max_retries": 0}
        )
        self._begin()

    def __reduce__(self) -> Any:
        return WebStorage, (self._location, self._place)

    @functools.cached_property
    def _objects(self) -> dict[str, int]:
        """The bytes of each object by its name, sorted: as it was when it was first asked for."""
        found = _listed_by_hub(self._place, self._location) if self._place.tree else self._listed_here()
        for name, size in found.items():
            check_name(name, self._location)
            if not 0 <= size <= most_bytes(name):
                raise CorruptStoreError(
                    f"{self._location}: {name} is said to have {size:,} bytes, and such an object has at most "
                    f"{most_bytes(name):,}"
                )
        return dict(sorted(found.items()))

    def _listed_here(self) -> dict[str, int]:
        try:
            content = self._sent("gets", "read", LISTING, self._read_listing)
        except FileNotFoundError:
            raise NotAStoreError(
                f"{self._location} has no {LISTING}, and a web server cannot list a store's objects; write it with "
                f"`logitstore export STORE --format listing --out {LISTING}` and put it beside the store's zarr.json"
            ) from None
        return read_listing(content, self._location)

    def _read_listing(self) -> bytes:
        found = self._api.get(self._store, LISTING)
        if found.meta["size"] > _MOST_LISTING:
            raise CorruptStoreError(f"{self._location}: {LISTING} has {found.meta['size']:,} bytes")
        return bytes(found.bytes())

    def contents(
        self, prefix: str = "", stem: str = "", wanted: Callable[[str], bool] = lambda name: True
    ) -> Iterator[tuple[str, bytes | None]]:
        names = list(filter(wanted, self.names(prefix, stem)))
        yield from zip(names, self.get_many(names), strict=True)

    def names(self, prefix: str = "", stem: str = "") -> Iterator[str]:
        begin = f"{prefix}/{stem}" if prefix else stem
        return iter([name for name in self._objects if name.startswith(begin)])

    def sizes(self, prefix: str = "") -> dict[str, int]:
        return {name: self._objects[name] for name in self.names(prefix)}

    def put(self, name: str, content: bytes, still: Callable[[], bool] = lambda: True) -> bool:
        self._refuse()

    def put_many(self, contents: Mapping[str, bytes]) -> None:
        self._refuse()

    def create(self, name: str, content: bytes, still: Callable[[], bool] = lambda: True) -> bool:
        self._refuse()

    def create_many(self, contents: Mapping[str, bytes]) -> list[str]:
        self._refuse()

    def replace(self, name: str, content: bytes, expected: bytes) -> bool:
        self._refuse()

    def delete(self, name: str, still: Callable[[], bool] = lambda: True) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreError(
            f"{self._location} is read-only: nothing can be written at {self._scheme}://; copy the store to a folder "
            "or a bucket and work there"
        )

    def _explained(self, doing: str, name: str, text: str, spent: str = "") -> StoreError:
        text = " ".join(text.split())
        if match := re.search(r"status code: (40[13][^:]*)", text):
            token = "; a private dataset needs a token in HF_TOKEN" if self._scheme == "hf" else ""
            return StoreError(f"{self._location}: the server refused to {doing} {name} ({match[1].strip()}){token}")
        reason = text.split(" - ", 1)[-1].split("Debug source")[0][:300].rstrip(". ")
        reason += f", {spent}" if spent else ""
        return StoreError(f"{self._location}: cannot {doing} {name} ({reason}); check the URL and the network")


def listing(sizes: Mapping[str, int]) -> bytes:
    """The content of ``listing.json`` for a store whose storage has objects of these sizes."""
    own = {name: sizes[name] for name in sorted(sizes) if name.split("/")[0] in _OWN}
    return msgspec.json.encode(Listing(own))


def read_listing(content: bytes, location: str) -> dict[str, int]:
    """The bytes of each object by its name.

    :param location: what a user calls the store.
    :raises CorruptStoreError: the content is no listing.
    """
    try:
        return msgspec.json.decode(content, type=Listing).objects
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptStoreError(f"{location}: {LISTING} is no listing of a store ({error})") from error


def _on_server(location: str) -> _Place:
    parts = urllib.parse.urlsplit(location)
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise UsageError(
            "a store on a web server has a URL like https://HOST/PATH, without a user, a password, ? or #; give one"
        )
    if parts.scheme.lower() == "http" and not _LOOPBACK.fullmatch(parts.netloc):
        raise UsageError(f"{location} is not encrypted; give https://, http:// is for this machine alone")
    return _Place(location, {})


def _on_hub(location: str) -> _Place:
    form = "hf://datasets/OWNER/NAME/PATH, or …/NAME@REVISION/PATH"
    match = re.fullmatch(r"hf://datasets/([\w.-]+)/([\w.-]+?)(?:@([^/@]+))?(?:/(.+))?", location)
    if match is None or any(part in ("", ".", "..") for part in (match[4] or "x").split("/")):
        raise UsageError(f"{location!r} is no place for a store on the hub; give {form}")
    owner, name, revision, folder = match[1], match[2], match[3] or "main", match[4] or ""
    hub = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")
    split = urllib.parse.urlsplit(hub)
    if split.scheme != "https" and not (split.scheme == "http" and _LOOPBACK.fullmatch(split.netloc)):
        raise UsageError(f"HF_ENDPOINT is {hub!r}; it must begin with https://")
    token = os.environ.get("HF_TOKEN", "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    api = f"{hub}/api/datasets/{owner}/{name}"
    about, _ = _json(f"{api}/revision/{urllib.parse.quote(revision, safe='')}", headers, location)
    commit = about.get("sha") if isinstance(about, dict) else None
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise StoreError(f"{location}: the hub at {hub} did not say which commit {revision} is")
    quoted = urllib.parse.quote(folder)
    tree = f"{api}/tree/{commit}/{quoted}".rstrip("/") + "?recursive=true"
    base = f"{hub}/datasets/{owner}/{name}/resolve/{commit}/{quoted}".rstrip("/")
    return _Place(base, headers, tree, folder)


def _listed_by_hub(place: _Place, location: str) -> dict[str, int]:
    """All objects of the store, from the pages of the hub's listing."""
    page, found = place.tree, dict[str, int]()
    begin = f"{place.folder}/" if place.folder else ""
    for _ in range(_MOST_PAGES):
        if page is None:
            break
        entries, page = _json(page, place.headers, location)
        try:
            files = [(each["path"], int(each["size"])) for each in entries if each["type"] == "file"]
        except (TypeError, KeyError, ValueError) as error:
            raise StoreError(f"{location}: the hub's listing is not of the form that is known") from error
        found |= {path.removeprefix(begin): size for path, size in files if path.startswith(begin)}
    return {name: size for name, size in found.items() if not name.startswith(".")}


def _json(url: str, headers: Mapping[str, str], location: str) -> tuple[Any, str | None]:
    """What the hub says at a URL, and the URL of the next page; None for the last."""
    request = urllib.request.Request(url, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            content, link = answer.read(_MOST_LISTING), answer.headers.get("Link", "")
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise NotAStoreError(f"{location}: the hub has no such dataset, revision or folder") from error
        refused = "; a private dataset needs a token in HF_TOKEN" if error.code in (401, 403) else ""
        raise StoreError(f"{location}: the hub answered {error.code} {error.reason}{refused}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise StoreError(f"{location}: no answer from the hub ({reason}); check the network") from error
    following = re.search(r'<([^>]+)>;\s*rel="next"', link)
    try:
        return json.loads(content), following[1] if following and _same_host(url, following[1]) else None
    except ValueError as error:
        raise StoreError(f"{location}: the hub's answer is no JSON") from error


def _same_host(one: str, other: str) -> bool:
    """Whether two URLs lead to one server, so that a token may go to both."""
    first, second = urllib.parse.urlsplit(one), urllib.parse.urlsplit(other)
    return (first.scheme, first.netloc) == (second.scheme, second.netloc)
