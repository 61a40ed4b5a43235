"""Models in the layout of the Hugging Face hub: a local folder, or an id on the hub; never any code that came with it.

The folder, or the snapshot in the hub's cache, holds ``config.json``, whose ``model_type`` says what the model is, and
its weights. The config is read here first, as bounded JSON, so that a type that is not known is refused before any
library looks at the repository, and nobody is asked whether its code may run.
"""

from __future__ import annotations

import importlib
import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logitstore.documents import DocumentError, load_json, parse_yaml
from logitstore.errors import MissingExtraError, TeacherError, UsageError
from logitstore.files import require_end
from logitstore.plugins import OWN_ERRORS
from logitstore.texts import one_line

CONFIG = "config.json"
_MOST_CONFIG, _MOST_VALUES = 1 << 24, 200_000
_SECONDS = 20.0  # that the hub has to answer
_MOST_CARD = 1 << 16  # bytes of a model card in which its front matter must end
#: Keys of a config file that decide nothing of what a model says.
_SAYS_NOTHING = ("transformers_version", "torch_dtype", "dtype", "architectures")
#: How the identifiers of model cards are written in SPDX's list, where not in upper case throughout.
_SPDX = {"apache-2.0": "Apache-2.0", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause"}
_NON_COMMERCIAL = re.compile(r"(^|-)nc(-|$)")


@dataclass(frozen=True)
class Repository:
    """A model's folder, or its id on the hub.

    :param source: the folder, or the id. :param local: whether it is a folder. :param folder: that one, or the snapshot
        in the cache. :param offline: whether the hub cannot be reached, so that the cache must do.
    :param config: what its ``config.json`` says.
    """

    spec: str
    source: str
    local: bool
    offline: bool
    folder: Path
    config: dict[str, Any]

    @property
    def whose(self) -> str:
        """What messages call it."""
        return f"teacher {self.spec!r}"

    @property
    def safe(self) -> dict[str, Any]:
        """Keywords of ``from_pretrained``: the same snapshot for every file, no network for a folder, no code ever."""
        if self.local:
            return {"local_files_only": True, "trust_remote_code": False}
        return {"local_files_only": self.offline, "trust_remote_code": False, "revision": self.folder.name}

    def file(self, name: str) -> Path | None:
        """A file of it, fetched where it lies on the hub; None where there is none.

        :raises TeacherError: it cannot be fetched.
        """
        if self.local:
            return self.folder / name if (self.folder / name).is_file() else None
        return _fetched(self.spec, self.source, name, self.folder.name, self.offline)

    def stated(self) -> dict[str, Any]:
        """The words of a contract on licence and origin; of a card that is there, the network is not asked for one."""
        licence = _licence(self.folder / "README.md")
        return {
            "licence": licence,
            "non_commercial": licence is not None and bool(_NON_COMMERCIAL.search(licence.lower())),
            "origin": None if self.local else f"https://huggingface.co/{self.source}",
        }


def open_repository(spec: str, source: str) -> Repository:
    """The repository that a spec names, its config read.

    :raises TeacherError: no such folder or id, or no config in it that can be read; the hub cannot be reached.
    :raises MissingExtraError: an id, and huggingface_hub is not installed.
    """
    path = Path(source)
    whose = f"teacher {spec!r}"
    local = path.is_dir()
    if not local and (path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise TeacherError(f"{whose}: no folder {source!r}; give a model's folder or its id on the hub")
    revision, offline = (None, False) if local else _newest(spec, source)
    file = path / CONFIG if local else _fetched(spec, source, CONFIG, revision, offline)
    if file is None or not file.is_file():
        raise TeacherError(
            f"{whose} is not a transformers audio model: {source!r} has no {CONFIG}; give the folder or the id of one"
        )
    try:
        config = load_json(file, _MOST_CONFIG, _MOST_VALUES, nan=True)
    except (OSError, DocumentError) as error:
        raise TeacherError(f"{whose}: its {CONFIG} cannot be read: {one_line(str(error), 300)}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise TeacherError(f"{whose}: its {CONFIG} names no model_type; that of a transformers model does")
    return Repository(spec, source, local, offline, file.parent, config)


def _newest(spec: str, source: str) -> tuple[str | None, bool]:
    """The newest commit of an id on the hub; None where that cannot be reached, and whether that is so.

    One request without retries, which the hub's own client makes for half a minute where there is no network.
    """
    hub, errors = _hub(spec)
    try:
        return hub.HfApi().model_info(source, timeout=_SECONDS).sha, False
    except errors.GatedRepoError:
        return None, False
    except errors.RepositoryNotFoundError as error:
        raise TeacherError(
            f"teacher {spec!r}: the hub has no model {source!r}, or none that you may see, and there is no such folder "
            "here; give a model's folder, or its id on the hub"
        ) from error
    except (errors.HfHubHTTPError.__bases__[0], OSError):  # the first is the error of the hub's library for HTTP
        return None, True
    except ValueError as error:
        raise _no_id(spec, source, error) from error


def _fetched(spec: str, source: str, name: str, revision: str | None, offline: bool) -> Path | None:
    """A file of an id on the hub, from the cache where it lies there; None where the model has no such file."""
    whose = f"teacher {spec!r}"
    hub, errors = _hub(spec)
    try:
        return Path(hub.hf_hub_download(source, name, revision=revision, local_files_only=offline))
    except errors.GatedRepoError as error:
        raise TeacherError(
            f"{whose}: its owner asks for consent first; give it at https://huggingface.co/{source}, and log in with "
            "`hf auth login`"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if revision is not None and offline:
            return None
        raise TeacherError(
            f"{whose}: there is no folder {source!r}, and the hub cannot be reached, whose cache here lacks its "
            f"{name}; where there is a network, run `hf download {source} --local-dir FOLDER`, and give that folder"
        ) from error
    except errors.EntryNotFoundError:
        return None
    except OWN_ERRORS as error:
        raise _no_id(spec, source, error) from error


def _no_id(spec: str, source: str, error: Exception) -> TeacherError:
    reason = one_line(str(error), 200).rstrip(".")
    return TeacherError(f"teacher {spec!r}: {source!r} is no folder here, and cannot be had from the hub: {reason}")


def _hub(spec: str) -> tuple[Any, Any]:
    """huggingface_hub and its errors.

    :raises MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub"), importlib.import_module("huggingface_hub.errors")
    except ImportError as error:
        raise MissingExtraError("transformers", "hf", f"teacher {spec!r}") from error


@contextmanager
def loading(repository: Repository, what: str) -> Iterator[Any]:
    """transformers, quiet, around what it loads of a repository; what goes wrong there becomes one line.

    :param what: that the repository should be, for messages.
    :raises TeacherError: it cannot be loaded. :raises MissingExtraError: transformers is not installed.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError("transformers", "hf", repository.whose) from error
    safetensors: Any = importlib.import_module("safetensors")
    hub: Any = importlib.import_module("huggingface_hub.errors")
    wrong_field: type[Exception] = getattr(hub, "StrictDataclassError", ValueError)  # younger than some of its versions
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="At least one mel filter")  # of a filter bank not used here
            yield transformers
    except UsageError:
        raise
    except (*OWN_ERRORS, EOFError, pickle.UnpicklingError, safetensors.SafetensorError, wrong_field) as error:
        if "trust_remote_code" in str(error):
            raise TeacherError(
                f"{repository.whose} brings code of its own (auto_map), which is never run; give a model that "
                "transformers itself implements"
            ) from error
        raise TeacherError(
            f"{repository.whose} is not {what} that can be loaded: {one_line(str(error), 300)}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_model(transformers: Any, repository: Repository, kind: str) -> Any:
    """The model of a repository in float32, by a class of transformers, every weight of it from the repository.

    :raises TeacherError: it is quantised, or lacks weights.
    """
    import torch

    config = transformers.AutoConfig.from_pretrained(repository.source, **repository.safe)
    if getattr(config, "quantization_config", None) is not None:
        raise TeacherError(
            f"{repository.whose}: its weights are quantised, by a library that would come with it; give the model "
            "that was quantised, in float32 or float16"
        )
    model, report = getattr(transformers, kind).from_pretrained(
        repository.source, config=config, output_loading_info=True, dtype=torch.float32, **repository.safe
    )
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise TeacherError(
            f"{repository.whose} lacks {len(missing)} of its weights, the first is {missing[0]!r}; a model that was "
            "never trained to classify cannot teach"
        )
    return model.eval()


def said_by(config: dict[str, Any]) -> dict[str, Any]:
    """What a config says that decides what its model says."""
    return {key: value for key, value in config.items() if not key.startswith("_") and key not in _SAYS_NOTHING}


def _licence(card: Path) -> str | None:
    """The licence that the front matter of a model card names; None where there is no card, or none in it."""
    try:
        require_end(card)
        with card.open("rb") as file:
            text = file.read(_MOST_CARD).decode("utf-8-sig", errors="replace")
        front = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
        said = parse_yaml(front[1]) if front is not None else None
    except (OSError, DocumentError):
        return None
    if not isinstance(said, dict):
        return None
    found = said.get("license")
    if found == "other":
        found = said.get("license_name", found)
    names = [name for name in (found if isinstance(found, list) else [found]) if isinstance(name, str) and name]
    return " or ".join(_spdx(one_line(name, 100)) for name in names) or None


def _spdx(name: str) -> str:
    plain = name.lower()
    if plain in _SPDX:
        return _SPDX[plain]
    return name.upper() if plain == "mit" or plain.startswith("cc") else name
