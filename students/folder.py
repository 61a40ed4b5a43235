"""The folder of a training: what was asked stands in it from the start, so that it is never mistaken for another's."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from logitstore.errors import RunError
from students.fit import LOG_NAME, FitResult
from students.models.tagger import Tagger
from students.runs import is_run, load_run, save_run

OPTIONS_NAME = "training.json"

_MAY_DIFFER = ("versions.", "places.")
_MOST_NAMED = 4
_REMEDY = "give another --out, or remove that folder"


def begin(out: str, training: dict[str, Any]) -> FitResult | None:
    """Open a run folder for a training; the result if just this training has finished there.

    One that was interrupted starts over: the seed decides everything, so it ends as it would have.

    :param training: what makes the training what it is, as JSON values; in it ``versions`` and ``places`` (where the
        data lies, which digests stand for) may differ.
    :raises RunError: the folder is not empty and not of this training; the differences are shown.
    """
    folder = Path(out)
    document = json.loads(json.dumps(training))
    try:
        if folder.is_dir() and any(folder.iterdir()):
            _require_same(folder, document)
            if is_run(folder):
                return FitResult(**load_run(folder).config["result"])
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{OPTIONS_NAME}.partial"
        partial.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        partial.replace(folder / OPTIONS_NAME)
    except OSError as error:
        raise RunError(
            f"run folder {out!r} cannot be written: {error.strerror or error}; choose another --out"
        ) from error
    return None


def finish(
    out: str,
    training: dict[str, Any],
    result: FitResult,
    model: Tagger,
    model_name: str,
    model_args: dict[str, Any],
    classes: tuple[str, ...],
) -> None:
    """Write the weights and ``run.json``, with what was asked and what came of it."""
    rate = model.front_end.sample_rate
    extra = {"training": training, "result": asdict(result)}
    save_run(out, model_name, model_args, classes, model.scores, rate, model, extra)


def log_path(out: str) -> Path:
    """Where the log of a training lies."""
    return Path(out) / LOG_NAME


def _require_same(folder: Path, asked: dict[str, Any]) -> None:
    if not (folder / OPTIONS_NAME).is_file():
        found = sorted(path.name for path in folder.iterdir())[0]
        raise RunError(f"{str(folder)!r} is not empty (it holds {found!r}) and not a training's; {_REMEDY}")
    try:
        there = json.loads((folder / OPTIONS_NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{str(folder / OPTIONS_NAME)!r} is damaged ({error}); {_REMEDY}") from error
    old, new = _flat(there), _flat(asked)
    changed = [
        f"{name}: there {old.get(name)!r}, asked {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not name.startswith(_MAY_DIFFER)
    ]
    if changed:
        more = f"; and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
        raise RunError(f"{str(folder)!r} holds another training ({'; '.join(changed[:_MOST_NAMED])}{more}); {_REMEDY}")


def _flat(document: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(document, dict) or not document:
        return {prefix.rstrip("."): document}
    return {name: value for key, item in document.items() for name, value in _flat(item, f"{prefix}{key}.").items()}
