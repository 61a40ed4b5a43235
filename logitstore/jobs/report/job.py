"""The report job: every view of a store goes by once, the parts of the page count, and one file is written."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore.errors import MissingExtraError, OutputError, UsageError
from logitstore.files import write_whole
from logitstore.jobs.options import ReportOptions
from logitstore.jobs.pages import asset
from logitstore.plugins import declared
from logitstore.store.reader import Store, open_store
from logitstore.store.summary import summarise
from logitstore.texts import one_line

if TYPE_CHECKING:
    from logitstore.jobs.report.page import Part, Section
    from logitstore.jobs.survival import Survival

_PACKAGE = "logitstore.jobs.report"
_TITLE = 80  # characters of it


@dataclass(frozen=True)
class Reported:
    """The page that was written: its place, bytes and sections; the views it tells of, and how long it took."""

    path: str
    bytes: int
    sections: tuple[str, ...]
    views: int
    runs: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def report(options: ReportOptions, progress: Callable[[int, int], None] | None = None) -> Reported:
    """Write the report of a store and of runs.

    :param progress: told (views done, views).
    :raises MissingExtraError: the extra ``report`` is not installed.
    :raises UsageError: a store, a run or a teacher that cannot be used; options that do not go together.
    :raises OutputError: the page cannot be written.
    """
    began = time.monotonic()
    _require_extra()
    out = Path(options.out)
    if out.is_dir() or not out.parent.is_dir():
        found = "is a folder" if out.is_dir() else f"would lie in {str(out.parent)!r}, which is no folder"
        raise OutputError(f"-o {options.out!r} {found}; give the file to write, as report.html")
    if options.teachers and options.audio_root is None:
        raise UsageError("--teacher asks teachers about views, which needs their audio; give --audio-root too")
    paths = [options.store, *options.also]
    store = open_store(paths if len(paths) > 1 else options.store, audio_root=options.audio_root)
    content, sections = render(store, options, progress)
    try:
        write_whole(out, content)
    except OSError as error:
        raise OutputError(f"the report {options.out!r} cannot be written: {error.strerror or error}") from error
    return Reported(
        path=options.out,
        bytes=len(content),
        sections=tuple(section.name for section in sections),
        views=store.view_count(),
        runs=len(options.runs),
        seconds=round(time.monotonic() - began, 3),
    )


def render(
    store: Store, options: ReportOptions, progress: Callable[[int, int], None] | None = None
) -> tuple[bytes, list[Section]]:
    """The page of a store as UTF-8, and its sections."""
    from logitstore.jobs.report.page import Report
    from logitstore.jobs.report.runs import read_run
    from logitstore.jobs.report.views import ranges

    runs = tuple(read_run(run) for run in options.runs)
    about = Report(store, summarise(store), runs, options.audio_root is not None, _measured(store, options))
    making = [kind(about) for kind in parts()]
    looking = [part for part in making if part.looks]
    for views in ranges(store, progress):
        for part in looking:
            part.see(views)
    sections = [section for part in making if (section := part.section()) is not None]
    name = Path(store.pieces[0].location.rstrip("/")).name or store.location
    title = name if len(store.pieces) == 1 else f"{name} and {len(store.pieces) - 1} more"
    return _page(title, store.location, [run.name for run in runs], sections), sections


def parts() -> list[type[Part]]:
    """What the page consists of, in its order; see the package for how a part gets here."""
    found = sorted(declared(_PACKAGE, "PART").items(), key=lambda each: (each[1]["place"], each[0]))
    return [getattr(importlib.import_module(module), said["class"]) for module, said in found]


def _page(title: str, location: str, runs: list[str], sections: list[Section]) -> bytes:
    import jinja2
    import markupsafe

    files = {
        name: resources.files(_PACKAGE).joinpath(name).read_text("utf-8")
        for name in ("page.html", "page.css", "page.js")
    }

    def printed(value: Any) -> Any:
        return one_line(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value

    style, script = asset("theme.css") + files["page.css"], files["page.js"]
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=printed
    )
    made = environment.from_string(files["page.html"]).render(
        title=one_line(title, _TITLE),
        location=location,
        runs=runs,
        sections=sections,
        policy=policy,
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        version=metadata.version("logitstore"),
    )
    return made.encode("utf-8")


def _hash(text: str) -> str:
    """How a content security policy names an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _measured(store: Store, options: ReportOptions) -> Survival | None:
    """What the store's teachers say when they are asked again about some of its clips, and of views of them."""
    if not options.teachers or store.audio is None:
        return None
    from logitstore.jobs.survival import CLIPS, Sample, survival
    from logitstore.jobs.verify.job import store_ensemble

    manifest = store.manifest
    ensemble = store_ensemble(store.location, manifest, options.teachers, options.device)
    with ThreadPoolExecutor(options.workers or os.cpu_count() or 1, "decode") as pool:
        sample = Sample.of(
            manifest.recipe,
            manifest.place,
            store.clips,
            store.audio,
            seed=manifest.seed,
            clips=CLIPS,
            views=CLIPS,
            pool=pool,
        )
        if sample is None:
            raise UsageError(
                f"no clip of {store.location} can be decoded from {options.audio_root}; is it the right folder?"
            )
        return survival(ensemble, sample, batch_size=manifest.batch_size)


def _require_extra() -> None:
    """Say what is missing before any work is done."""
    for package, name in (("jinja2", "jinja2"), ("pillow", "PIL")):
        try:
            importlib.import_module(name)
        except ImportError:
            raise MissingExtraError(package, "report", "a report") from None
