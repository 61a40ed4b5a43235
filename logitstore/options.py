"""Options, each declared once: as an annotated field of a dataclass.

    @dataclass(frozen=True, kw_only=True)
    class BuildOptions(Options):
        views: Annotated[int, Option("Views of every clip.", least=1)] = 10

That one line is the flag ``--views``, the key ``views`` of a ``--config`` file, the Python keyword ``views``, the check
of its range, its line in ``--help`` and its line in ``docs/reference.md``. A field without a default is required.
Options that several commands have are declared once too, in the last part of this file.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from logitstore.documents import DocumentError, load_yaml, parse_yaml
from logitstore.errors import UsageError
from logitstore.texts import shown

P = ParamSpec("P")
O = TypeVar("O")  # noqa: E741 - the options of a job
R = TypeVar("R")
Asked = TypeVar("Asked", bound="Options")


@dataclass(frozen=True)
class Option:
    """What a field's type and default do not say of an option.

    :param help: a sentence or two in plain words, without the default, which is shown after it.
    :param group: the heading that it stands under in the help.
    :param flag: its flag without dashes, and its key in a file; by default the field's name with dashes.
    :param key: its key in a file where that is not the flag, as where an argument is called so already.
    :param short: a letter for a short flag. :param argument: given by its place on the command line, without a flag.
    :param metavar: what stands for its value in the help. :param default: what None means, in words.
    :param least, most, above, below: the numbers that are allowed, the first two inclusive.
    :param many: whether it may be repeated; by default where its type is a sequence and nothing else.
    :param words: how many words of the command line make one value; ``parse`` makes a value of all that were given.
    :param names: what its text is the name of ("store", "audio", "source", "classes", "recipe", "teacher", "run",
        "file"): a command looks at that before it imports anything heavy.
    :param old: former spellings that still work and are not shown; a mapping also says which value a flag stands for.
    :param instead: the field that says the same in another way: only one of the two may be given.
    :param short_for: it is short for values of other fields, which have them as soon as the options are made.
    """

    help: str
    group: str = "Options"
    flag: str | None = None
    key: str | None = None
    short: str | None = None
    argument: bool = False
    metavar: str | None = None
    default: str | None = None
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    many: bool | None = None
    words: int = 1
    parse: Callable[[Any], Any] | None = None
    names: str | None = None
    old: Mapping[str, Any] = field(default_factory=dict)
    instead: str | None = None
    short_for: bool = False

    def but(self, **changes: Any) -> Self:
        """The same option, otherwise for a few things: for a command that says or allows something else."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every command's options: they are checked as soon as they are made.

    :raises UsageError: (or the class's own ``error``) a value of the wrong type, or out of its range.
    """

    error: ClassVar[type[UsageError]] = UsageError

    @classmethod
    def filled(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that are given, by field, and for fields that are not given what others are short for.

        A class that has such fields is made :func:`filling`.
        """
        return dict(values)

    @classmethod
    def today(cls, recorded: dict[str, Any]) -> dict[str, Any]:
        """What an earlier release recorded in a file, in the words of this one: for options that are there no more.

        :param recorded: by keys of files or by names of fields. :raises UsageError: there are no such words.
        """
        return recorded

    def __post_init__(self) -> None:
        for each in fields_of(type(self)):
            value = getattr(self, each.name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, each.name, value := os.fspath(value))
            wrong = each.wrong(value)
            if wrong is not None:
                raise self.error(f"{each.shown} is {shown(value)}; {wrong}")
            if each.option.instead is not None and value and getattr(self, each.option.instead):
                other = next(one for one in fields_of(type(self)) if one.name == each.option.instead)
                first, second = sorted((each.shown, other.shown))
                raise self.error(f"{first} and {second} are both given; give one of them")


def filling(options: type[Asked]) -> type[Asked]:
    """Makes a dataclass of options take what some of the values given are short for; see :meth:`Options.filled`."""
    plain: Callable[..., None] = options.__init__

    @functools.wraps(plain)
    def filled(self: Asked, **values: Any) -> None:
        plain(self, **options.filled(values))

    options.__init__ = filled  # type: ignore[method-assign, assignment]
    return options


@dataclass(frozen=True)
class Field:
    """An option as its declaration says it is, ready to be read, checked and shown.

    :param kind: bool, int, float, str or dict: of each value where there are ``many``, of which one alone may stand for
        itself (``single``). :param other: further types that a Python caller may give. :param choices: the values that
        are allowed, or none for any.
    :param words: texts that are allowed in the place of a number.
    :param default: ``dataclasses.MISSING`` where it is required.
    """

    name: str
    option: Option
    kind: type
    many: bool
    single: bool
    other: tuple[type, ...]
    choices: tuple[Any, ...]
    words: tuple[str, ...]
    default: Any

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING

    @property
    def flag(self) -> str:
        """Its flag without dashes."""
        return self.option.flag or self.name.replace("_", "-")

    @property
    def key(self) -> str:
        """Its name in a file, which is nearly always its flag without dashes."""
        return self.option.key or self.flag

    @property
    def shown(self) -> str:
        """How messages call it: its flag, or what stands for its value where it has none."""
        return self.placeholder if self.option.argument else f"--{self.flag}"

    @property
    def placeholder(self) -> str:
        """What stands for its value in the help."""
        if self.option.metavar is not None:
            return self.option.metavar
        if self.choices:
            return "|".join(map(str, self.choices))
        if self.words:
            return "|".join(("N", *self.words))
        names = {int: "N", float: "X", dict: "K=V", bool: ""}
        return self.key.upper() if self.option.argument else names.get(self.kind, "TEXT")

    def default_text(self) -> str | None:
        """The default in words; None where there is nothing to say."""
        if self.required or self.option.default is not None or self.kind is bool:
            return self.option.default
        if self.default is None or self.default in ((), "", {}):
            return None
        return _number(self.default) if isinstance(self.default, int | float) else str(self.default)

    def allowed(self) -> str | None:
        """The numbers that are allowed, in words; None for all."""
        option = self.option
        low = option.least if option.least is not None else option.above
        high = option.most if option.most is not None else option.below
        if option.least is not None and option.most is not None:
            return f"{_number(option.least)} to {_number(option.most)}"
        least = None if low is None else f"{'at least' if option.least is not None else 'more than'} {_number(low)}"
        most = None if high is None else f"{'at most' if option.most is not None else 'less than'} {_number(high)}"
        return " and ".join(each for each in (least, most) if each) or None

    def wrong(self, value: Any) -> str | None:
        """The end of a message about a value that cannot be right, which says what can; None for one that can."""
        if value is None and not self.required and self.default is None:
            return None
        if isinstance(value, self.other) or (isinstance(value, str) and value in self.words):
            return None
        if self.kind is dict:
            fine = isinstance(value, Mapping) and all(isinstance(each, str) for each in value)
            return None if fine else "it must be a mapping, as {width: 8}"
        values = value if self.many and not (self.single and isinstance(value, str)) else [value]
        if (
            isinstance(values, str)
            or not isinstance(values, Sequence)
            or not all(self._is_of_kind(each) for each in values)
        ):
            word = " or ".join((_KINDS[self.kind], *self.words))
            return f"it must be {word} or a list of {word}s" if self.many else f"it must be {word}"
        if self.choices:
            fine = all(each in self.choices for each in values)
            return None if fine else f"it must be one of {', '.join(map(str, self.choices))}"
        if all(map(self._in_range, values)):
            return None
        numbers = self.allowed() or "finite"
        return f"allowed are {numbers}" if numbers[0].isdigit() else f"it must be {numbers}"

    def _is_of_kind(self, value: Any) -> bool:
        if self.kind is bool or isinstance(value, bool):
            return self.kind is bool and isinstance(value, bool)
        if self.choices:
            return True
        return isinstance(value, int | float if self.kind is float else self.kind)

    def _in_range(self, value: Any) -> bool:
        option = self.option
        if not isinstance(value, int | float) or isinstance(value, bool):
            return True
        return (
            math.isfinite(value)
            and (option.least is None or value >= option.least)
            and (option.most is None or value <= option.most)
            and (option.above is None or value > option.above)
            and (option.below is None or value < option.below)
        )

    def read(self, value: Any) -> Any:
        """A value of a YAML file as a Python caller would give it; YAML takes 1e-3, for one, for text."""
        if self.many and isinstance(value, list):
            return tuple(map(self._read_one, value))
        read = self._read_one(value)
        return read if self.single or not self.many or not self._is_of_kind(read) else (read,)

    def _read_one(self, value: Any) -> Any:
        if self.kind is not float or isinstance(value, bool) or not isinstance(value, int | str):
            return value
        try:
            return float(value)
        except ValueError:
            return value


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


_FIELDS: dict[type, tuple[Field, ...]] = {}


def fields_of(options: type[Options]) -> tuple[Field, ...]:
    """The options that a dataclass declares, in the order of its fields."""
    if options not in _FIELDS:
        hints = get_type_hints(options, include_extras=True)
        found = [(each, _option(hints[each.name]), hints[each.name]) for each in dataclasses.fields(options)]
        _FIELDS[options] = tuple(_field(each, option, hint) for each, option, hint in found if option is not None)
    return _FIELDS[options]


def _option(hint: Any) -> Option | None:
    """The last option of an annotation: an alias may hold another, which it replaces."""
    said = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Option)]
    return said[-1] if said else None


def _field(each: dataclasses.Field[Any], option: Option, hint: Any) -> Field:
    types = _types(get_args(hint)[0])
    words = [kind for kind, _ in types if get_origin(kind) is Literal] if types[0][0] in (int, float) else []
    types = [each for each in types if each[0] not in words]
    single, several = ([kind for kind, many in types if many is wanted] for wanted in (False, True))
    kind, *other = single or several
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    many = not single if option.many is None else option.many
    return Field(
        name=each.name,
        option=option,
        kind=type(choices[0]) if choices else kind,
        many=many,
        single=bool(single),
        other=(*other, tuple, list) if several and not many else tuple(other),
        choices=choices,
        words=tuple(word for each in words for word in get_args(each)),
        default=each.default_factory() if callable(each.default_factory) else each.default,
    )


def _types(hint: Any) -> list[tuple[Any, bool]]:
    """The types that a type hint joins, and whether each is the type of the values of a sequence."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return [found for each in get_args(hint) for found in _types(each)]
    if origin in (Sequence, Mapping):
        return [(dict, False)] if origin is Mapping else [(get_args(hint)[0], True)]
    return [] if hint is type(None) else [(hint, False)]


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of a message about a name that there is not: the one that was meant, or all that are allowed."""
    names = list(allowed)
    near = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(names)}"


def with_keywords(options: Callable[P, O]) -> Callable[[Callable[[O], R]], Callable[P, R]]:
    """Makes of a job, which takes an object of options, a function that takes their fields as keywords.

    Type checkers see the keywords, for they are those of the dataclass.
    """

    def decorate(job: Callable[[O], R]) -> Callable[P, R]:
        @functools.wraps(job)
        def called(*args: P.args, **keywords: P.kwargs) -> R:
            return job(options(*args, **keywords))

        signature = inspect.signature(options).replace(return_annotation=inspect.signature(job).return_annotation)
        called.__signature__ = signature  # type: ignore[attr-defined]
        return called

    return decorate


def only(options: Options, kind: type[Asked]) -> Asked:
    """The options that a base of a command's options has, without what the command adds."""
    return kind(**{each.name: getattr(options, each.name) for each in dataclasses.fields(kind)})


# files


def read_config(file: str, options: type[Options]) -> dict[str, Any]:
    """The options that a YAML file gives, by the name of their field.

    Its keys are flags without dashes in front, arguments included: ``store: …``, ``batch-size: 32``,
    ``model-arg: {width: 8}``. Former spellings and the Python keywords are known too. A key without a value says
    nothing.

    :raises UsageError: it cannot be read, has an unknown key, or a value of the wrong type or out of its range.
    """
    try:
        document = load_yaml(file)
    except OSError as error:
        raise options.error(f"--config {file!r} cannot be read: {error.strerror or error}") from error
    except DocumentError as error:
        raise options.error(f"--config {file!r} is not YAML that can be used: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise options.error(f"--config {file!r} holds a {type(document).__name__}; it must map options to values")
    fields = {each.key: each for each in fields_of(options)}
    also = {each.name: (each, None) for each in fields.values()}
    also |= {old.lstrip("-"): (each, value) for each in fields.values() for old, value in each.option.old.items()}
    values = {}
    for name, value in options.today(document).items():
        key = name.replace("_", "-") if name not in also else name
        if key not in fields and key not in also:
            raise options.error(f"--config {file!r} has the unknown key {shown(name)}; {nearest(key[:80], fields)}")
        each, meaning = (fields[key], None) if key in fields else also[key]
        if value is None or (meaning is not None and value is False):
            continue
        found = each.read(value) if meaning is None else meaning
        wrong = each.wrong(found)
        if wrong is not None:
            raise options.error(f"--config {file!r}: {name} is {shown(value)}; {wrong}")
        values[each.name] = found
    return values


def key_values(texts: Sequence[str]) -> dict[str, Any]:
    """``K=V`` texts as a mapping; values are read as YAML scalars (16 is an int, true a bool).

    :raises ValueError: a text without a name or without ``=``, or a value that is no YAML.
    """
    pairs: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"{shown(text)} is not of the form NAME=VALUE, as in width=16")
        try:
            pairs[key] = parse_yaml(value)
        except DocumentError as error:
            raise ValueError(
                f"{shown(text)}: the value is not YAML that can be used ({error}); quote it, as in NAME='\"[\"'"
            ) from error
    return pairs


def dump(options: Options) -> str:
    """Options as the YAML that ``--config`` takes; those that are None are left out.

    What is short for others is a comment: those have their values.
    """
    import yaml

    values = [(each, _plain(getattr(options, each.name))) for each in fields_of(type(options))]
    said = [(each, value) for each, value in values if value is not None]
    short = "".join(f"# {each.key} {value}\n" for each, value in said if each.option.short_for)
    return short + yaml.safe_dump(
        {each.key: value for each, value in said if not each.option.short_for}, sort_keys=False
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple | list) else value


def _number(value: float) -> str:
    if isinstance(value, int) and value.bit_length() > 40:
        return f"2**{value.bit_length()} - 1"
    return f"{value:g}" if isinstance(value, float) else str(value)


# what several commands have: aliases where the defaults differ, dataclasses where they do not

#: The number format that a training computes in, and its optimizer.
Precision = Literal["float32", "bf16", "fp16"]
Optimizer = Literal["adamw", "adam", "adam8bit"]

AudioRoot = Annotated[
    str | None,
    Option(
        "The folder, or packed audio, that the paths of a manifest are relative to.",
        group="Audio", metavar="DIR", names="audio", default="the manifest's folder",
    ),
]  # fmt: skip
Where = Annotated[
    str | None,
    Option("Take only the rows of the source for which this SQL condition holds.", group="Audio", metavar="SQL"),
]
CLIP_SECONDS = Option(
    "Longer files are cut into clips of this length.",
    group="Audio", metavar="S", least=0.1, most=3600, default="10, or the longest file where that is shorter",
)  # fmt: skip
ClipSeconds = Annotated[float | None, CLIP_SECONDS]
LabelColumn = Annotated[
    str | None,
    Option("The column of labels: text, numbers, or lists of them.", group="Audio", metavar="NAME",
           default="what --labels says; one of the two is needed"),
]  # fmt: skip
LABELS = Option(
    "The labels of a data set as it was released: sonyc, of SONYC-UST's annotations.csv. Instead of --label-column.",
    group="Audio", instead="label_column", metavar="sonyc",
)  # fmt: skip
Labels = Annotated[Literal["sonyc"] | None, LABELS]
LEVEL = Option("Which classes of --labels sonyc: 8 coarse or 23 fine ones.", group="Audio", default="coarse")
Level = Annotated[Literal["coarse", "fine"] | None, LEVEL]
LABEL_SEPARATOR = Option(
    "What separates several labels in one cell.",
    group="Audio", metavar="TEXT", default="';', or ',' or '|' where each part is a known class",
)  # fmt: skip
LabelSeparator = Annotated[str | None, LABEL_SEPARATOR]
CLASSES = Option(
    "Keep only the classes that are named in this file, one a line; or common, those that every teacher knows.",
    group="Teachers", metavar="FILE|common", names="classes", default="all",
)  # fmt: skip
DEVICE = Option(
    "Where the models run: auto (a GPU where there is one), cpu, cuda or cuda:N.", group="Running", metavar="DEVICE"
)
Device = Annotated[str, DEVICE]
Workers = Annotated[
    int | None,
    Option("Threads that read and decode audio.", group="Running", least=1, default="the number of cores"),
]
BATCH_SIZE = Option("How many clips or views go through the models at a time.", group="Running", least=1)
BatchSize = Annotated[int, BATCH_SIZE]
EVAL = Option(
    "A table of labelled audio to measure mAP on.",
    group="Evaluation", flag="eval", metavar="MANIFEST", names="source",
)  # fmt: skip
EVAL_WHERE = Option(
    "Measure on the rows of that table for which this SQL condition holds.", group="Evaluation", metavar="SQL"
)
Store = Annotated[str, Option("The store: a folder, or a URL.", argument=True, metavar="STORE", names="store")]
STORE_WEIGHT = Option(
    "How much a store counts in the ensemble of several that heard the same views; a number for each, in their order.",
    group="Teachers", flag="store-weight", metavar="W", default="as much as it has teachers",
)  # fmt: skip
StoreWeights = Annotated[Sequence[float] | None, STORE_WEIGHT]
Stores = Annotated[
    str | Sequence[str],
    Option("The store: a folder, or a URL. Several are read as one.", argument=True, metavar="STORE...", names="store",
           many=True),
]  # fmt: skip
CLIPS = Option(
    "Learn only from the clips that this table names: Parquet or CSV with a column `clip`, as `logitstore inspect "
    "STORE @NAME --out FILE` writes it, or with `path`, `start` and `length`. A file of verdicts names all clips but "
    "those that are judged wrong.",
    group="Audio", metavar="FILE", names="file",
)  # fmt: skip
VERDICTS = Option(
    "Correct the labels by these verdicts of the listening page: a clip that is judged wrong has the right label, or "
    "none where none was given.",
    group="Audio", metavar="FILE", names="file",
)  # fmt: skip
OUT = Option("The folder or URL of the store to write.", group="Output", short="o", metavar="STORE")
Out = Annotated[str, OUT]


@dataclass(frozen=True, kw_only=True)
class ColumnOptions(Options):
    """Which columns of a table say which file a clip is of, and from where to where."""

    path_column: Annotated[
        str | None,
        Option("The column of audio files in a table.", group="Audio", metavar="NAME",
               default="path, or the one that is called like it, as filename"),
    ] = None  # fmt: skip
    start_column: Annotated[
        str | None,
        Option("The column of a clip's start in its file, in seconds; '' for none.", group="Audio", metavar="NAME",
               default="start, or onset and the like beside an end"),
    ] = None  # fmt: skip
    end_column: Annotated[
        str | None,
        Option("The column of a clip's end in its file, in seconds; '' for none.", group="Audio", metavar="NAME",
               default="end, or offset and the like beside a start"),
    ] = None  # fmt: skip
    duration_column: Annotated[
        str | None,
        Option("The column of a clip's duration in seconds; '' for none.", group="Audio", metavar="NAME",
               default="duration"),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """Where models run."""

    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(Options):
    """How many threads read audio."""

    workers: Workers = None


@dataclass(frozen=True, kw_only=True)
class AudioCacheOptions(Options):
    """Where decoded audio is kept for the next command that wants it."""

    audio_cache: Annotated[
        str | None,
        Option("Keep what is dear to decode (Ogg, MP3, FLAC, other rates) in this folder, decoded, for all processes "
               "and commands that want it; the bits are the same.", group="Running", metavar="DIR", default="none"),
    ] = None  # fmt: skip
    audio_cache_size: Annotated[
        float | None,
        Option("What that folder may take, in GiB.", group="Running", metavar="GIB", above=0, most=1 << 30,
               default="half of the room that its disk has left"),
    ] = None  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.audio_cache_size is not None and self.audio_cache is None:
            raise self.error("--audio-cache-size bounds a folder that --audio-cache names; give that too")


@dataclass(frozen=True, kw_only=True)
class EnsembleOptions(DeviceOptions, WorkerOptions):
    """How several teachers speak as one, and how they run."""

    weights: Annotated[
        Sequence[float] | None,
        Option(
            "How much a teacher counts in the average; one number for each --teacher, in their order.",
            group="Teachers", flag="teacher-weight", metavar="W", default="all alike",
        ),
    ] = None  # fmt: skip
    average: Annotated[
        Literal["probability", "logit"],
        Option("Average the teachers' probabilities or their logits.", group="Teachers"),
    ] = "probability"
    precision: Annotated[
        Literal["float32", "bf16", "fp16", "amp"],
        Option(
            "The number format that the models compute in; 16 bits are faster on a GPU, and round more.",
            group="Running", metavar="float32|bf16|fp16", old={"--amp": "amp"},
        ),
    ] = "float32"  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JsonOptions(Options):
    """How the answer is printed."""

    json: Annotated[bool, Option("Print the result as a line of JSON.", group="Output")] = False


@dataclass(frozen=True, kw_only=True)
class SpreadsheetOptions(Options):
    """How CSV is written."""

    spreadsheet_safe: Annotated[
        bool,
        Option(
            "For CSV that a spreadsheet shall open: quote all texts, and put an apostrophe before those that it would "
            "run as a formula (that begin with =, +, -, @, a tab or a line end). Numbers stay numbers.",
            group="Output",
        ),
    ] = False  # fmt: skip


def label_column_of(options: Any) -> str:
    """The column of labels that options ask for, by ``label_column`` or by ``labels`` and ``level``.

    :raises UsageError: (or the options' own ``error``) none, or a ``level`` of no data set.
    """
    if options.labels is not None:
        return options.level or "coarse"  # what logitstore.audio.sonyc calls its columns
    if options.level is not None:
        raise options.error(f"--level {options.level} chooses classes of a data set's own labels; give --labels sonyc")
    if options.label_column is None:
        raise options.error("--label-column is given neither on the command line nor in a --config FILE")
    return str(options.label_column)
