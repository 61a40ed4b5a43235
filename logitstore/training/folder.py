"""The folder of a training: what was asked stands in it from the start, so that it is never mistaken for another's."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from logitstore.errors import RunError
from logitstore.files import clear_partials, is_partial, write_whole
from logitstore.models.tagger import Tagger
from logitstore.training.checkpoints import FOLDER, Checkpoints
from logitstore.training.fit import FitResult
from logitstore.training.runs import is_run, load_run, save_run

OPTIONS_NAME = "training.json"
CONFIG_NAME = "config.yaml"

_MAY_DIFFER = ("versions.", "places.")
_MOST_NAMED = 4
_REMEDY = "give another --out, or remove that folder"


def begin(out: str, training: dict[str, Any], config: str) -> dict[str, Any] | None:
    """Open a run folder for a training; the result if just this training has finished there.

    One that was interrupted goes on from its last checkpoint, or starts over where it had none, and ends as it would
    have.

    :param training: what makes the training what it is, as JSON values; in it ``versions`` and ``places`` (where the
        data lies, which digests stand for) may differ.
    :param config: the resolved options as YAML; written beside it.
    :returns: the fields of a :class:`logitstore.training.fit.FitResult`, or None.
    :raises RunError: the folder is not empty and not of this training; the differences are shown.
    """
    folder = Path(out)
    try:
        if folder.is_dir() and any(not is_partial(path) for path in folder.iterdir()):
            _require_same(folder, training)
            if is_run(folder):
                result: dict[str, Any] = load_run(folder).config["result"]
                Checkpoints(folder).remove()
                return result
        folder.mkdir(parents=True, exist_ok=True)
        clear_partials(folder)
        write_whole(folder / OPTIONS_NAME, (json.dumps(training, indent=2) + "\n").encode())
        write_whole(folder / CONFIG_NAME, config.encode())
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
    more: dict[str, Any],
) -> None:
    """Write the weights and ``run.json``, with what was asked and what came of it; checkpoints go.

    :param more: further keys of ``run.json``.
    """
    rate = model.front_end.sample_rate
    extra = {"training": training, "result": asdict(result), **more}
    save_run(out, model_name, model_args, classes, model.scores, rate, model, extra)
    Checkpoints(Path(out)).remove()


def require_same_checkpoint(out: str, there: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse a checkpoint of another training, which somebody put there.

    :raises RunError: with the differences.
    """
    if changed := _differences(there, asked):
        raise RunError(
            f"{str(Path(out) / FOLDER)!r} holds a checkpoint of another training ({changed}); remove it, or give "
            "another --out"
        )


def _require_same(folder: Path, asked: dict[str, Any]) -> None:
    if not (folder / OPTIONS_NAME).is_file():
        found = sorted(path.name for path in folder.iterdir())[0]
        raise RunError(f"{str(folder)!r} is not empty (it holds {found!r}) and not a training's; {_REMEDY}")
    try:
        there = json.loads((folder / OPTIONS_NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{str(folder / OPTIONS_NAME)!r} is damaged ({error}); {_REMEDY}") from error
    if changed := _differences(there, asked):
        raise RunError(f"{str(folder)!r} holds another training ({changed}); {_REMEDY}")


def _differences(there: Any, asked: dict[str, Any]) -> str:
    """What differs, both values shown; empty where nothing does that matters."""
    old, new = _flat(there), _flat(asked)
    changed = [
        f"{name}: there {old.get(name)!r}, asked {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not name.startswith(_MAY_DIFFER)
    ]
    more = f"; and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
    return "; ".join(changed[:_MOST_NAMED]) + more


def _flat(document: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(document, dict) or not document:
        return {prefix.rstrip("."): document}
    return {name: value for key, item in document.items() for name, value in _flat(item, f"{prefix}{key}.").items()}
