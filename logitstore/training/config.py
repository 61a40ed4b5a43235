"""Options of a training in a YAML file: ``--config FILE`` reads one, and every run holds its own, resolved.

Its keys are the command's options without dashes in front, arguments included: ``store: …``, ``batch-size: 32``,
``model-arg: {width: 8}``. Options given on the command line win.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore.errors import RunError

if TYPE_CHECKING:
    import click

    from logitstore.training.options import LoopOptions

#: Fields whose key is not their name with dashes.
_KEYS = {"model_args": "model-arg", "terms": "term", "eval_manifest": "eval", "cache_bytes": "cache-mib"}
#: Keys of which one takes the place of the other: each says the same thing in another way.
_INSTEAD = {"epochs": "steps", "steps": "epochs", "balance": "weight-by", "weight-by": "balance"}
_MIB_BITS = 20


def dump(options: LoopOptions) -> str:
    """Options as YAML; those that are None are left out."""
    import yaml

    values = {key(each.name): _plain(each.name, getattr(options, each.name)) for each in fields(options)}
    return yaml.safe_dump({name: value for name, value in values.items() if value is not None}, sort_keys=False)


def key(field: str) -> str:
    """The key, and option, of a field."""
    return _KEYS.get(field, field.replace("_", "-"))


def merged(context: click.Context, config: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a command was asked, by the name of its parameter: given on the command line, or in the file, or default.

    :param given: the command's parameters.
    :raises RunError: a file that cannot be read, an unknown key, a value of the wrong type, or one that is needed and
        not given.
    """
    from click.core import ParameterSource

    parameters = {_key_of(each): each for each in context.command.params if each.name not in ("config", "help")}
    found = {} if config is None else _read(config, parameters)
    values = dict(given)
    said = {
        name for name, each in parameters.items()
        if context.get_parameter_source(str(each.name)) == ParameterSource.COMMANDLINE
    }  # fmt: skip
    for name, value in found.items():
        if name not in said and _INSTEAD.get(name) not in said:
            values[str(parameters[name].name)] = value
    for name, parameter in parameters.items():
        if name in REQUIRED.get(str(context.command.name), ()) and not values[str(parameter.name)]:
            raise RunError(f"{_shown(parameter)} is given neither on the command line nor in a --config FILE")
    return values


#: What a command needs, on its command line or in its file.
REQUIRED = {
    "train-student": ("store", "audio-root", "student", "out"),
    "train-teacher": ("manifest", "label-column", "model", "out"),
}


def _read(config: str, parameters: Mapping[str, click.Parameter]) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"--config {config!r} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"--config {config!r} is not YAML: {' '.join(str(error).split())}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise RunError(f"--config {config!r} holds a {type(document).__name__}; it must map options to values")
    values = {}
    for name, value in document.items():
        if name not in parameters:
            near = difflib.get_close_matches(str(name), parameters, n=1)
            meant = f"; did you mean {near[0]!r}" if near else f"; allowed are {', '.join(parameters)}"
            raise RunError(f"--config {config!r} has the unknown key {name!r}{meant}")
        if value is not None:
            values[name] = _checked(config, name, value, parameters[name])
    return values


def _checked(config: str, name: str, value: Any, parameter: click.Parameter) -> Any:
    """A value as the command's parameter has it.

    :raises RunError: the wrong type.
    """
    import click

    def wrong(wanted: str) -> RunError:
        return RunError(f"--config {config!r}: {name} is {value!r}; it must be {wanted}")

    if name == "model-arg":
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value):
            raise wrong("a mapping, as {width: 8}")
        return value
    if parameter.multiple if isinstance(parameter, click.Option) else False:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
            raise wrong("text or a list of texts")
        return tuple(values)
    kind = parameter.type
    if isinstance(kind, click.Choice):
        if value not in kind.choices:
            raise wrong(f"one of {', '.join(map(str, kind.choices))}")
        return value
    if isinstance(kind, click.types.BoolParamType):
        if not isinstance(value, bool):
            raise wrong("true or false")
        return value
    if isinstance(kind, click.types.IntParamType):
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong("a whole number")
        return value
    if isinstance(kind, click.types.FloatParamType):
        number = _number(value)
        if number is None:
            raise wrong("a number")
        return number
    if not isinstance(value, str):
        raise wrong("text")
    return value


def _number(value: Any) -> float | None:
    """A float; YAML 1.1 reads 1e-3, which has no dot, as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _key_of(parameter: click.Parameter) -> str:
    longest = max(parameter.opts, key=len)
    return longest.removeprefix("--").replace("_", "-").lower()


def _shown(parameter: click.Parameter) -> str:
    return parameter.opts[0].upper() if parameter.param_type_name == "argument" else max(parameter.opts, key=len)


def _plain(field: str, value: Any) -> Any:
    if field == "cache_bytes":
        return value >> _MIB_BITS
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple | list) else value
