"""A store as a folder for the Hugging Face hub: a table that anyone can look at, the store itself, and a card.

The card says what the targets are, whose teachers gave them under which licences, and how to train a student on them.
The store in the folder opens where it lies: ``logitstore inspect hf://datasets/OWNER/NAME/store``.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from logitstore.errors import UsageError
from logitstore.jobs.export import Advance, export_parquet, require_blocks, whole
from logitstore.store.format.manifest import LICENCE, NON_COMMERCIAL, ORIGIN, Member
from logitstore.store.names import LISTING
from logitstore.store.reader import Store
from logitstore.store.summary import Summary, summarise
from logitstore.store.web import listing, read_listing

STORE, TARGETS, CARD = "store", "targets/views.parquet", "README.md"
_NOT_STATED = "not stated"
_COPIED_AT_ONCE = 64  # objects
#: The hub's names for how large a data set is, by the first number of rows that is beyond it.
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
          (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))  # fmt: skip


def export_hub(
    store: Store, out: str | Path, *, title: str, licence: str | None = None, advance: Advance = lambda views: None
) -> str:
    """Write a folder that can be put on the hub as a data set.

    ``store/`` is the store, byte for byte, with a ``listing.json`` for web servers; ``targets/views.parquet`` the flat
    table of :func:`logitstore.jobs.export.export_parquet`; ``README.md`` the card. No audio is in it.

    :param title: what the card calls it. :param licence: of the targets, as the hub names it, such as "cc-by-4.0".
    :returns: what was written, in words.
    :raises UsageError: ``out`` exists, the store has no blocks yet, or is of several pieces.
    """
    require_blocks(store)
    if len(store.pieces) > 1:
        raise UsageError("several stores are no folder of one; write them as one with `logitstore merge` first")
    with whole(out) as partial:
        (partial / TARGETS).parent.mkdir(parents=True)
        export_parquet(store, partial / TARGETS, advance=advance)
        objects = _copy(store, partial / STORE)
        text = card(summarise(store), title=title, licence=licence)
        (partial / CARD).write_text(text, "utf-8", "surrogateescape")
    return f"{store.view_count():,} views, the store ({objects:,} objects) and a card written to {out}"


def listing_of(store: Store) -> bytes:
    """What a web server must have beside a store's ``zarr.json``, as ``listing.json``: names and sizes of its objects.

    :raises UsageError: the store has no blocks yet, or is of several pieces.
    """
    require_blocks(store)
    if len(store.pieces) > 1:
        raise UsageError("each of several stores has a listing of its own; give one store")
    return listing(store.pieces[0].storage.sizes())


def _copy(store: Store, target: Path) -> int:
    """The store's own objects as files, and their listing; how many."""
    storage = store.pieces[0].storage
    contents = listing(storage.sizes())
    names = list(read_listing(contents, store.location))
    for start in range(0, len(names), _COPIED_AT_ONCE):
        some = names[start : start + _COPIED_AT_ONCE]
        for name, content in zip(some, storage.get_many(some), strict=True):
            if content is None:
                raise UsageError(f"{store.location}: {name} went away while it was copied; is a build under way?")
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
    (target / LISTING).write_bytes(contents)
    return len(names)


def card(about: Summary, *, title: str, licence: str | None) -> str:
    """The card of a data set: what the hub reads, between lines of dashes, and below it what people read."""
    manifest = about.manifest
    unfree = [member.name for member in manifest.teachers if member.contract.get(NON_COMMERCIAL)]
    rows = about.stored_views
    head = {
        "pretty_name": title,
        "license": licence or "other",
        "task_categories": ["audio-classification"],
        "tags": ["audio", "knowledge-distillation", "audio-tagging", "logitstore"],
        "size_categories": [next((name for most, name in _SIZES if rows < most), "n>1T")],
        "configs": [{"config_name": "targets", "data_files": TARGETS}],
    }
    count = len(manifest.teachers)
    taggers = "an audio tagger" if count == 1 else f"{count} audio taggers"
    recipe = ", ".join(op.name for op in manifest.recipe.ops) or "no augmentation"
    if licence:
        terms = f"The targets are given under the licence `{licence}`."
    else:
        terms = "Who made this data set has stated no licence for the targets; ask before you use them."
    if unfree:
        terms += (
            f" The weights of {_words(unfree)} are not for commercial use, and what was learnt from them may fall "
            "under the same terms: read their licences."
        )
    kept = f"the {manifest.topk} most probable"
    if about.kept is not None:
        kept = f"1 to {about.kept.most}, the most probable,"
    paragraphs = [
        f"# {_plain(title)}",
        f"What {taggers} said of {about.views} "
        f"augmented views of each of {about.clips:,} clips of {manifest.clip_seconds:g} s, and exactly what was heard: "
        f"{kept} of {len(manifest.classes):,} classes of each of {rows:,} views "
        f"({manifest.scores} scores), under the recipe `{_plain(manifest.recipe.name)}` ({recipe}) at "
        f"{manifest.sample_rate:,} Hz. A small tagger can be trained on it without labels, and without running the "
        "teachers again, by anyone who has the audio.",
        "**No audio is in this data set.** The clips are named by their paths; `logitstore verify` tells whether your "
        "copy of the audio is the one that the teachers heard.",
        "## Teachers",
        "| teacher | weight | licence of the weights | where they come from | digest |\n"
        "| --- | ---: | --- | --- | --- |\n"
        + "\n".join(_row(member) for member in manifest.teachers),
        "## Terms",
        terms,
        "## What is in it",
        f"- `{TARGETS}`: a row a view: `path`, `start`, `length`, `rate`, `clip`, `view`, what was drawn, `classes` "
        "falling by `probabilities`.\n"
        f"- `{STORE}/`: the same as a store of Zarr arrays and Parquet tables, {about.store_bytes:,} bytes, from which "
        "every view is replayed.",
        "```python\nfrom datasets import load_dataset\n\nviews = load_dataset(\"OWNER/NAME\", \"targets\")\n```",
        "```console\n"
        "$ pip install 'logitstore[cloud]'\n"
        f"$ logitstore look hf://datasets/OWNER/NAME/{STORE}\n"
        f"$ train-student hf://datasets/OWNER/NAME/{STORE} --audio-root AUDIO --out student\n"
        "```",
    ]  # fmt: skip
    top = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{top}---\n\n" + "\n\n".join(paragraphs) + "\n"


def upload_line(out: str) -> str:
    """The command that puts the folder on the hub."""
    return f"hf upload OWNER/NAME {shlex.quote(out)} --repo-type dataset"


def _row(member: Member) -> str:
    says = member.contract
    licence = str(says.get(LICENCE) or _NOT_STATED) + (", not for commercial use" if says.get(NON_COMMERCIAL) else "")
    origin = str(says.get(ORIGIN) or _NOT_STATED)
    cells = (_plain(member.name), f"{member.weight:.3g}", _plain(licence), _plain(origin), f"`{member.digest[:16]}`")
    return f"| {' | '.join(cells)} |"


def _words(names: list[str]) -> str:
    shown = [_plain(name) for name in names]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _plain(text: str) -> str:
    """A text of a store in Markdown, as text: on one line, and without anything that Markdown or HTML would read."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|!~" else letter for letter in line)
