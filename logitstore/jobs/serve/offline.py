"""The listening page as one file: up to 1,000 clips with their sounds inside, for whoever has neither store nor audio.

The page, its scripts and the data lie in one HTML document that fetches nothing: its content security
policy allows the scripts and styles that are in it, by their hashes, and no connection at all. Sounds are Opus in Ogg,
which is not what the teachers heard sample by sample, and the page says so.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from logitstore.arrays import F32, I64
from logitstore.digests import digest
from logitstore.errors import AudioError, UsageError
from logitstore.files import check_out, open_out
from logitstore.jobs.pages import asset
from logitstore.jobs.serve.index import make_index
from logitstore.jobs.serve.listening import Listening
from logitstore.jobs.serve.search import Asked
from logitstore.store.subset import read_subset

if TYPE_CHECKING:
    from logitstore.store.reader import Store

MOST_CLIPS = 1000
#: Classes of a view, and of the mean over views, that the file holds.
CLASSES, MEAN_CLASSES = 5, 10
#: libsndfile's scale from 0 to 1; this is about 11 kbit/s.
COMPRESSION = 0.98
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_SCRIPTS = ("dom", "mel", "player", "provider", "settings", "verdicts", "judging", "results", "clip", "page")


@dataclass(frozen=True)
class ListeningFile:
    """What was written to ``path``: ``clips`` in ``bytes`` bytes, of which ``sounds`` are sounds, in ``seconds``.

    ``unheard`` gives the clips of which a sound could not be decoded, and why.
    """

    path: str
    clips: int
    bytes: int
    sounds: int
    seconds: float
    unheard: dict[int, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        unheard = [{"clip": clip, "reason": reason} for clip, reason in self.unheard.items()]
        return asdict(self) | {"unheard": unheard}


def write_listening_page(
    store: Store,
    out: str | Path,
    *,
    clips: str = "100",
    views: int = 0,
    label_column: str | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> ListeningFile:
    """Write the listening page of some clips of a store as one file.

    :param store: opened with its audio. :param out: the file.
    :param clips: how many, spread evenly over the store; or a table of clips (Parquet, CSV); or ``@question``, whose
        first clips are taken in its order. At most 1,000.
    :param views: how many views of each clip can be heard beside the original, the first ones.
    :param label_column: of the clip table; None to find it by its name.
    :param advance: is told of clips done, and of all.
    :raises UsageError: ``out`` exists; more clips or views than there can be; no such question or column.
    :raises SourceError, MismatchError: as :func:`~logitstore.store.subset.read_subset`.
    """
    begun = time.perf_counter()
    check_out(out, "--listen")
    if not 0 <= views <= store.views:
        raise UsageError(
            f"--listen-views {views}: {store.location} has {store.views} views of each clip; give 0 to {store.views}"
        )
    listening = Listening(store, make_index(store, label_column), None, "")
    chosen = _chosen(listening, clips)
    unheard: dict[int, str] = {}
    documents: dict[int, Any] = {}
    with ThreadPoolExecutor(os.cpu_count()) as encoders:
        encoding: dict[str, Future[bytes]] = {}
        for done, clip in enumerate(chosen.tolist()):
            advance(done, len(chosen))
            documents[clip] = _shortened(listening, clip)
            try:
                for name, waveform in _heard(store, clip, views).items():
                    encoding[name] = encoders.submit(opus, waveform, store.manifest.sample_rate)
            except AudioError as error:
                unheard[clip] = str(error)
        sounds = {name: base64.b64encode(encoded.result()).decode() for name, encoded in encoding.items()}
    advance(len(chosen), len(chosen))
    data = _data(listening, chosen, documents, clips)
    html = _page(data, sounds).encode()
    with open_out(out, "--listen") as file:
        file.write(html)
    return ListeningFile(
        str(out), len(chosen), len(html), sum(map(len, sounds.values())), round(time.perf_counter() - begun, 3), unheard
    )


def _chosen(listening: Listening, asked: str) -> I64:
    """The numbers of the clips that a file is to hold, in the order of its list."""
    store, count = listening.store, len(listening.index)
    if asked.startswith("@"):
        found = listening.search(Asked(question=asked[1:])).clips[:MOST_CLIPS]
        if not len(found):
            raise UsageError(f"--clips {asked}: it finds no clip in {store.location}")
        return found
    if not asked.isdecimal():
        chosen = read_subset(store, asked).clips
        if len(chosen) > MOST_CLIPS:
            raise UsageError(
                f"--clips {asked}: {len(chosen):,} clips; one file holds at most {MOST_CLIPS:,}; serve more"
            )
        return chosen
    if not 0 < int(asked) <= MOST_CLIPS:
        raise UsageError(f"--clips {asked}: give 1 to {MOST_CLIPS:,} clips, a table of clips, or @question")
    return np.unique(np.linspace(0, count - 1, min(int(asked), count)).round().astype(np.int64))


def _shortened(listening: Listening, clip: int) -> dict[str, Any]:
    """The document of a clip with the first classes alone, in three digits."""
    document = listening.clip_document(clip)
    found = listening.store[clip]
    del document["verdict"], document["verdicts"]
    document["mean"] = document["mean"][:MEAN_CLASSES]
    for view in document["views"]:
        view["classes"] = view["classes"][:CLASSES]
    document["key"] = {"path": found.path, "start": found.start, "length": found.length, "rate": found.rate}
    short: dict[str, Any] = _rounded(document)
    return short


def _rounded(value: Any) -> Any:
    """A document whose fractions have three digits."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def _data(listening: Listening, chosen: I64, documents: dict[int, Any], asked: str) -> dict[str, Any]:
    store = listening.store_document()
    store |= {"clips": len(chosen), "person": "", "verdicts_file": "verdicts.csv", "read_only": False}
    rankings = {}
    if asked.startswith("@"):
        rankings[asked[1:]] = chosen.tolist()
    store["questions"] = [each | {"parameters": []} for each in store["questions"] if each["name"] in rankings]
    rows = _rounded(listening.rows(chosen))
    keys = json.dumps([documents[clip]["key"] for clip in chosen.tolist()])
    return {
        "store": store,
        "rows": [{name: value for name, value in row.items() if name != "verdict"} for row in rows],
        "clips": {clip: documents[clip] for clip in documents},
        "rankings": rankings,
        "id": digest(f"{store['location']} {keys}".encode()),
    }


def _heard(store: Store, clip: int, views: int) -> dict[str, F32]:
    """The sounds of a clip, by their names in the page."""
    found = store[clip]
    heard = {f"{clip}/original": found.waveform}
    for view in found.views[:views]:
        heard[f"{clip}/{view}"] = found.view(view).waveform
    return heard


def opus(waveform: F32, sample_rate: int) -> bytes:
    """A sound as Opus in Ogg, at the next rate that Opus has.

    :param waveform: float32 (S,), about [-1, 1]. :param sample_rate: in Hz.
    """
    import soundfile
    import soxr

    rate = next((each for each in _OPUS_RATES if each >= sample_rate), _OPUS_RATES[-1])
    if rate != sample_rate:
        waveform = soxr.resample(waveform, sample_rate, rate)
    file = io.BytesIO()
    soundfile.write(file, np.clip(waveform, -1, 1), rate, format="OGG", subtype="OPUS", compression_level=COMPRESSION)
    return _without_padding(file.getvalue())


def _without_padding(file: bytes) -> bytes:
    """An Ogg Opus file without the 700 bytes of room for comments that libsndfile leaves, a fifth of a short sound."""
    pages = list(_pages(file))
    vendor_length = int.from_bytes(pages[1][1][8:12], "little")
    comments = pages[1][1][: 12 + vendor_length] + bytes(4)  # "OpusTags", the encoder's name, no comments
    if len(comments) > 254:
        return file
    header = pages[1][0][:22] + bytes(4) + bytes((1, len(comments)))
    checksum = _ogg_checksum(header + comments).to_bytes(4, "little")
    small = header[:22] + checksum + header[26:] + comments
    return b"".join(small if place == 1 else head + body for place, (head, body) in enumerate(pages))


def _pages(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The pages of an Ogg file, each as its header and its body."""
    place = 0
    while place < len(file):
        segments = file[place + 26]
        body = place + 27 + segments
        end = body + sum(file[place + 27 : body])
        yield file[place:body], file[body:end]
        place = end


def _ogg_checksum(page: bytes) -> int:
    """The checksum of a page of Ogg, in which its own place holds zeros."""
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ 0x04C11DB7 * (checksum >> 31)) & 0xFFFFFFFF
    return checksum


def _page(data: dict[str, Any], sounds: dict[str, str]) -> str:
    """The HTML document."""
    theme, style = asset("theme.css"), _static("page.css")
    player, script = _static("wavesurfer.min.js"), _script()
    licence = _static("wavesurfer.LICENSE.txt")
    policy = (
        f"default-src 'none'; script-src {_hash(player)} {_hash(script)}; style-src {_hash(theme)} {_hash(style)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    packed = base64.b64encode(gzip.compress(json.dumps(data, ensure_ascii=False).encode(), 9, mtime=0)).decode()
    html = _static("index.html")
    for placeholder, content in (
        (
            '<meta charset="utf-8">',
            f'<meta charset="utf-8">\n<meta http-equiv="content-security-policy" content="{policy}">',
        ),
        ('<link rel="stylesheet" href="/static/theme.css">', f"<style>{theme}</style>"),
        ('<link rel="stylesheet" href="/static/page.css">', f"<style>{style}</style>"),
        (
            '<script src="/static/wavesurfer.min.js"></script>',
            f"<!-- wavesurfer.js:\n{licence}-->\n<script>{player}</script>",
        ),
        ('<script type="module" src="/static/page.js"></script>\n', ""),
        (
            "</body>",
            f'<script type="application/json" id="data">{json.dumps(packed)}</script>\n'
            f'<script type="application/json" id="audio">{json.dumps(sounds)}</script>\n'
            f'<script type="module">{script}</script>\n</body>',
        ),
    ):
        before, after = html.split(placeholder)
        html = before + content + after
    return html


def _script() -> str:
    """The modules of the page as one, in the order in which they need each other."""
    modules = [_static(f"{name}.js") for name in _SCRIPTS]
    return "\n".join(
        re.sub(r"^export ", "", re.sub(r'^import .* from "\./.*";\n', "", module, flags=re.M), flags=re.M)
        for module in modules
    )


def _static(name: str) -> str:
    return resources.files("logitstore.jobs.serve").joinpath("static", name).read_text("utf-8")


def _hash(content: str) -> str:
    """A script or a style as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
