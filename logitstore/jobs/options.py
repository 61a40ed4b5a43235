"""What each job can be asked. Nothing heavy is imported, so that a command's help and its mistakes answer at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from logitstore.errors import RunError
from logitstore.options import (
    BATCH_SIZE,
    CLASSES,
    CLIP_SECONDS,
    CLIPS,
    DEVICE,
    EVAL,
    EVAL_WHERE,
    LABEL_SEPARATOR,
    LEVEL,
    OUT,
    VERDICTS,
    AudioCacheOptions,
    AudioRoot,
    BatchSize,
    ClipSeconds,
    ColumnOptions,
    DeviceOptions,
    EnsembleOptions,
    LabelColumn,
    Labels,
    LabelSeparator,
    Level,
    Option,
    Options,
    Out,
    Store,
    StoreWeights,
    Where,
    WorkerOptions,
)
from logitstore.store.format.frames import LEAST_HOP_MS, MOST_HOP_MS
from logitstore.store.format.manifest import MOST_VIEWS
from logitstore.store.format.quality import LEAST, MOST, MOST_CLASSES_KEPT
from logitstore.store.format.relations import DEFAULT_FRAMES, LEAST_FRAMES, MOST_FRAMES
from logitstore.views.recipe import AUTO, BUILT_IN, Recipe
from teachers.registry import forms

#: Views of a batch of a store, unless told otherwise.
DEFAULT_BATCH = 32
TEACHER = Option(
    f"A teacher: a run {', '.join(forms())}. Repeatable.",
    group="Teachers", flag="teacher", metavar="SPEC", names="teacher",
)  # fmt: skip
Teachers = Annotated[Sequence[str], TEACHER]
Source = Annotated[
    str | Sequence[str],
    Option(
        "The audio: a folder, audio files, a table of them (CSV, TSV, JSON lines or Parquet), label files of Audacity "
        "or Raven, tar shards, Parquet with audio bytes, or HDF5. Several are read as one.",
        argument=True, metavar="SOURCE...", names="source", many=True,
    ),
]  # fmt: skip
ViewSeconds = Annotated[
    float, Option("The length of every view in seconds.", group="Views", metavar="S", least=0.1, most=3600)
]
SampleRate = Annotated[int, Option("The sample rate of every view in Hz.", group="Views", metavar="HZ", least=1000)]
RECIPE = Option(
    f"How views are augmented: {', '.join(BUILT_IN)}, or a YAML file; {AUTO} is ced where every teacher takes masks, "
    "wave otherwise.",
    group="Views", metavar="NAME|FILE", names="recipe",
)  # fmt: skip
VIEW_SECONDS = Option(
    "The length of every view in seconds.",
    group="Views", metavar="S", least=0.1, most=3600, default="what the teachers learnt from, 10 where none says",
)  # fmt: skip
TopK = Annotated[
    int | None,
    Option(
        "How many of the most probable classes of every view are kept.",
        group="What is stored", least=1, default="20, or all where there are fewer",
    ),
]  # fmt: skip
ClassNames = Annotated[
    str, Option("A file with the names of the classes, one a line.", group="Classes", metavar="FILE", names="classes")
]


@dataclass(frozen=True, kw_only=True)
class StoredOptions(Options):
    """How a store keeps what it is given."""

    value_bits: Annotated[
        int | None,
        Option("Bits for a probability: 4 to 8, or 16 for float16.", group="What is stored", default="8"),
    ] = None  # fmt: skip
    shard_clips: Annotated[
        int | None,
        Option(
            "Clips in a shard, which is written and resumed as one.",
            group="What is stored", least=1, default="by the number of clips, at most 4096",
        ),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BuildingOptions(AudioCacheOptions):
    """How a build goes on: failures, several jobs."""

    strict: Annotated[
        bool, Option("Stop at the first clip that cannot be decoded, instead of recording it.", group="Running")
    ] = False
    retry_failed: Annotated[bool, Option("Try the clips again that failed before.", group="Running")] = False
    shards: Annotated[
        str | None,
        Option("Build only the shards A to B - 1, as one of several jobs that fill one store; auto is the part that a "
               "task of an array job has by its environment (Slurm, Kubernetes, AWS Batch, Grid Engine, PBS, LSF).",
               group="Running", metavar="A:B|auto"),
    ] = None  # fmt: skip
    engine: Annotated[
        Literal["process", "ray"],
        Option("What the work runs on: this process, beside any others that fill the store, or a Ray cluster, where "
               "decoding and the teachers are scheduled apart.", group="Running"),
    ] = "process"  # fmt: skip
    ray_address: Annotated[
        str | None,
        Option("The Ray cluster, HOST:PORT, or auto for the one that this machine is part of.", group="Running",
               metavar="A", default="that of RAY_ADDRESS, or one on this machine that ends with the command"),
    ] = None  # fmt: skip
    ray_actors: Annotated[
        str | None,
        Option("How many copies of the teachers are asked side by side on a Ray cluster, at least and at most.",
               group="Running", metavar="A:B", default="1 to as many as have room"),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BuildOptions(BuildingOptions, StoredOptions, EnsembleOptions, ColumnOptions):
    """What ``logitstore build`` is asked; None means the default that the data suggests."""

    source: Source = ()
    out: Out
    teachers: Teachers
    audio_root: AudioRoot = None
    where: Where = None
    like: Annotated[
        str | None,
        Option(
            "Draw the same views of the same clips as this store, for other teachers: clips, recipe, seed, rate and "
            "lengths come from it, and both can be read as one ensemble. SOURCE may be left out beside --audio-root.",
            group="Views",
            metavar="STORE",
            names="store",
        ),
    ] = None
    classes: Annotated[str | Sequence[str] | None, CLASSES] = None
    views: Annotated[
        int | None,
        Option("How many augmented views every clip gets.", group="Views", least=1, default="10, or those of --like"),
    ] = None
    recipe: Annotated[str | Recipe, RECIPE] = AUTO
    seed: Annotated[
        int | None,
        Option("Another seed draws other augmentations.", group="Views", default="0, or that of --like"),
    ] = None
    clip_seconds: Annotated[float | None, VIEW_SECONDS] = None
    sample_rate: Annotated[
        int | None,
        Option("The sample rate of every view in Hz.", group="Views", metavar="HZ", least=1000,
               default="the highest of the teachers"),
    ] = None  # fmt: skip
    topk: Annotated[
        int | None,
        Option("How many of the most probable classes of every view are kept; with --quality, at most.",
               group="What is stored", least=1,
               default=f"20, {MOST_CLASSES_KEPT} with --quality, or all where there are fewer"),
    ] = None  # fmt: skip
    quality: Annotated[
        float | None,
        Option(
            "How much of what the teachers say may be lost of a view, in nats, in the mean: the KL divergence of their "
            "answers to what is read back, over all classes, a class that is not kept being read as the mean of those. "
            "It chooses the bits, and for every view how many classes are kept: at least 1, at most --topk.",
            group="What is stored", metavar="NATS", least=LEAST, most=MOST,
            default="none: --topk classes of --value-bits of every view",
        ),
    ] = None  # fmt: skip
    value_bits: Annotated[
        int | None,
        Option("Bits for a probability: 4 to 8, or 16 for float16. --quality chooses them itself.",
               group="What is stored", default="8"),
    ] = None  # fmt: skip
    keep_members: Annotated[
        bool, Option("Keep what each teacher says of the stored classes, beside their average.", group="What is stored")
    ] = False
    relations: Annotated[
        str | None,
        Option(
            "Keep what the similarity losses of train-student need of the teachers' features: frames for IUSP, clips "
            "for SP, or frames,clips.",
            group="What is stored", metavar="frames,clips", default="nothing",
        ),
    ] = None  # fmt: skip
    similarity_frames: Annotated[
        int,
        Option("How many frames the teachers' features are pooled to for --relations.", group="What is stored",
               least=LEAST_FRAMES, most=MOST_FRAMES),
    ] = DEFAULT_FRAMES  # fmt: skip
    frames: Annotated[
        int | None,
        Option(
            "Keep when the teachers hear what: the ensemble's probabilities of every so many milliseconds, for frame "
            "targets. The teachers must be some that say when.",
            group="What is stored", metavar="MS", least=LEAST_HOP_MS, most=MOST_HOP_MS, default="nothing of when",
        ),
    ] = None  # fmt: skip
    batch_size: Annotated[
        int | Literal["auto"],
        BATCH_SIZE.but(
            help="How many views go through the teachers at a time; auto tries out how many are fastest on a GPU with "
            "memory to spare, before the first block, and is the default on a CPU. A store keeps the number that it "
            "was begun with."
        ),
    ] = DEFAULT_BATCH
    compile: Annotated[
        bool,
        Option(
            "Compile the teachers' nets with torch's compiler first, which takes a minute and rounds otherwise.",
            group="Running",
        ),
    ] = False  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Extension(BuildOptions):
    """The build that adds the clips of ``logitstore extend`` to a store."""

    skip_known: bool = False


@dataclass(frozen=True, kw_only=True)
class ExtendOptions(BuildingOptions, WorkerOptions, ColumnOptions):
    """What ``logitstore extend`` is asked; None means what the store has."""

    store: Store
    source: Source
    teachers: Annotated[
        Teachers, TEACHER.but(help="A teacher of the store, in its order; written as for build. Repeatable.")
    ]
    audio_root: AudioRoot = None
    where: Where = None
    views: Annotated[
        int | None,
        Option("How many views every new clip gets.", group="Views", least=1, default="as many as the store has"),
    ] = None
    skip_known: Annotated[
        bool, Option("Leave out clips that the store has, instead of refusing them.", group="Audio")
    ] = False
    device: Annotated[str | None, DEVICE.but(default="the kind that the store was built on")] = None


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Options):
    """What ``logitstore merge`` is asked; None means what the stores suggest."""

    stores: Annotated[
        Sequence[str],
        Option("The stores, each a folder or a URL. The first gives the clip table and the order of classes.",
               argument=True, metavar="STORE...", names="store"),
    ]  # fmt: skip
    out: Out
    ensemble: Annotated[
        bool, Option("The stores heard the same views: their teachers become one ensemble.", group="Teachers")
    ] = False
    store_weights: StoreWeights = None
    topk: Annotated[
        int | None,
        Option("How many of the most probable classes of every view are kept.", group="What is stored", least=1,
               default="as many as the store that kept most"),
    ] = None  # fmt: skip
    value_bits: Annotated[
        int | None,
        Option("Bits for a probability: 4 to 8, or 16 for float16.", group="What is stored",
               default="as many as the store that has most"),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PlanOptions(DeviceOptions):
    """What ``logitstore plan`` is asked."""

    clips: Annotated[float, Option("How many clips there are, as 2e6.", least=1, most=1e12)]
    views: Annotated[int, Option("How many augmented views every clip gets.", least=1, most=MOST_VIEWS)] = 10
    teachers: Annotated[
        Teachers, TEACHER.but(help="A teacher; with a rate given, any name. Repeatable.", group="Teachers", names=None)
    ]
    rates: Annotated[
        Sequence[str],
        Option("Views a second of a teacher on one device, one for all or one each in their order; `measured` asks it "
               "here for a few seconds about noise. Repeatable.", group="Teachers", flag="rate", metavar="N|measured",
               default="measured"),
    ] = ()  # fmt: skip
    devices: Annotated[int, Option("How many devices work at once.", group="Running", least=1)] = 1
    price: Annotated[
        float | None, Option("What an hour of one device costs.", group="Running", least=0, default="not told")
    ] = None
    like: Annotated[
        str | None,
        Option("Bytes a view and classes kept are those of this store.", group="What is stored",
               metavar="STORE", names="store"),
    ] = None  # fmt: skip
    clip_seconds: Annotated[float, CLIP_SECONDS.but(help="The length of every view in seconds.", default=None)] = 10.0
    topk: Annotated[
        int | None,
        Option("How many classes of every view are kept.", group="What is stored", least=1, default="20"),
    ] = None
    value_bits: Annotated[
        int | None, Option("Bits for a probability: 4 to 8, or 16 for float16.", group="What is stored", default="8")
    ] = None
    shard_clips: Annotated[
        int | None,
        Option("Clips in a shard.", group="What is stored", least=1, default="by the number of clips, at most 4096"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(DeviceOptions):
    """What ``logitstore verify`` is asked. Without ``replay`` and ``recompute``, 16 views where they are possible."""

    store: Store
    partial: Annotated[bool, Option("The build is not finished, so blocks may be missing.", group="Checks")] = False
    sample: Annotated[
        str | None,
        Option("Read the objects of so many blocks only, the next after those of the last run.",
               group="Checks", metavar="P%|BLOCKS", default="all"),
    ] = None  # fmt: skip
    state: Annotated[
        str | None,
        Option("Where --sample remembers what has been checked; not in the store.", group="Checks", metavar="FILE"),
    ] = None
    audio_root: Annotated[
        str | None,
        Option("The audio that the store was built from: replay views of it and compare what they sound like.",
               group="Checks", metavar="DIR", names="audio"),
    ] = None  # fmt: skip
    replay: Annotated[
        int | None, Option("How many views to replay.", group="Checks", least=1, default="16 with --audio-root")
    ] = None
    teachers: Annotated[
        Teachers,
        TEACHER.but(help="Ask this teacher of the store again, and compare its answers. Repeatable.", group="Checks"),
    ] = ()
    recompute: Annotated[
        int | None,
        Option("How many views to ask the teachers about.", group="Checks", least=1, default="16 with --teacher"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class RepairOptions(DeviceOptions, WorkerOptions, ColumnOptions):
    """What ``logitstore repair`` is asked. Without audio and teachers, it says what is lost."""

    store: Store
    source: Annotated[
        str | None,
        Option("What the store was built from; needed where its clip table is damaged.", argument=True, names="source"),
    ] = None  # fmt: skip
    audio_root: Annotated[
        str | None,
        Option("The audio that the store was built from, or what the paths of SOURCE are relative to.",
               group="Audio", metavar="DIR", names="audio"),
    ] = None  # fmt: skip
    where: Where = None
    teachers: Annotated[
        Teachers, TEACHER.but(help="A teacher of the store, to be asked again. Repeatable.", group="Teachers")
    ] = ()
    drop: Annotated[
        bool,
        Option("Remove what cannot be made again, so that the rest can be used and a later build fills the gap.",
               group="Running"),
    ] = False  # fmt: skip


MedianFilter = Annotated[
    float,
    Option("Smooth frame probabilities by a median over so many seconds before events are found in them; 0 for none.",
           group="Events", metavar="S", least=0, most=60),
]  # fmt: skip
Shortest = Annotated[
    float, Option("Leave out events shorter than so many seconds.", group="Events", metavar="S", least=0, most=3600)
]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EnsembleOptions, ColumnOptions, AudioCacheOptions):
    """What ``logitstore evaluate`` is asked; None means the default that the data or the teachers suggest.

    ``manifest`` may be None where only ``stored`` targets are scored, against labels of the store's own clip table.
    """

    manifest: Annotated[
        str | None,
        Option("A table of labelled audio: CSV, TSV, JSON lines or Parquet.", argument=True, names="source"),
    ] = None
    label_column: LabelColumn = None
    labels: Labels = None
    level: Annotated[Level, LEVEL.but(default="coarse, or with --measure whatever is predicted")] = None
    label_separator: LabelSeparator = None
    measure: Annotated[
        Literal["sonyc"] | None,
        Option("Give the official measure of a challenge too: sonyc, of DCASE 2019 and 2020 task 5, of the agreed "
               "labels of one split.", group="Evaluation", metavar="sonyc"),
    ] = None  # fmt: skip
    annotations: Annotated[
        str | None,
        Option("SONYC-UST's annotations.csv, for --measure sonyc.", group="Evaluation", metavar="FILE", names="file",
               default="MANIFEST"),
    ] = None  # fmt: skip
    predictions: Annotated[
        str | None,
        Option("Measure this file of scores, in the task's submission format; no teacher and no audio is needed.",
               group="Evaluation", metavar="FILE", names="file"),
    ] = None  # fmt: skip
    split: Annotated[
        Literal["train", "validate", "test"] | None,
        Option("The split that --measure sonyc is of.", group="Evaluation", default="validate"),
    ] = None  # fmt: skip
    write_predictions: Annotated[
        str | None,
        Option("Write what the teachers say of the split in the task's submission format; for --measure sonyc.",
               group="Evaluation", metavar="FILE.csv"),
    ] = None  # fmt: skip
    events: Annotated[
        bool,
        Option("MANIFEST has strong labels, a row an event (filename, onset, offset, event_label): measure event F1 "
               "and PSDS of teachers that say when.", group="Events"),
    ] = False  # fmt: skip
    threshold: Annotated[
        float,
        Option("The least probability of an event, for event F1; PSDS takes all.", group="Events", metavar="P", above=0,
               most=1),
    ] = 0.5  # fmt: skip
    median_filter: MedianFilter = 0.45
    shortest: Shortest = 0.0
    audio_root: AudioRoot = None
    where: Where = None
    clip_seconds: ClipSeconds = None
    sample_rate: Annotated[
        int | None,
        Option("The sample rate that clips are brought to, in Hz.", group="Audio", metavar="HZ", least=1000,
               default="the highest of the teachers"),
    ] = None  # fmt: skip
    teachers: Teachers = ()
    stored: Annotated[
        str | None,
        Option("Score the targets that this store holds; no audio is read for that.", group="Teachers",
               metavar="STORE", names="store"),
    ] = None  # fmt: skip
    clips: Annotated[
        str | None,
        CLIPS.but(
            help="Score only the clips of --stored that this table names, written as for train-student.",
            group="Teachers",
        ),
    ] = None
    verdicts: Annotated[str | None, VERDICTS] = None
    classes: Annotated[
        str | None, CLASSES.but(help="Score only the classes that are named in this file, one a line.")
    ] = None
    map: Annotated[
        str | None,
        Option("A CSV of label,class: which classes of the teachers each label stands for, as `logitstore teachers "
               "map` proposes it. Labels without a class are left out.", group="Teachers", metavar="FILE", names="file",
               default="a label is a class"),
    ] = None  # fmt: skip
    batch_size: BatchSize = 32


@dataclass(frozen=True, kw_only=True)
class MapOptions(Options):
    """What ``logitstore teachers map`` is asked."""

    teacher: Annotated[
        str, Option("The teacher that is to be measured.", argument=True, metavar="SPEC", names="teacher")
    ]
    labels: Annotated[
        str,
        Option("The labels: a table of labelled audio, or a list of names, one a line.", argument=True,
               metavar="LABELS", names="file"),
    ]  # fmt: skip
    label_column: Annotated[
        str | None,
        Option("The column of labels in a table.", group="Audio", metavar="NAME",
               default="label where the table has it; without it the file is a list of names"),
    ] = None  # fmt: skip
    label_separator: LabelSeparator = None
    where: Where = None
    out: Annotated[
        str | None,
        Option("The file to write.", group="Output", short="o", metavar="FILE.csv", default="it is printed"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CompareOptions(DeviceOptions, WorkerOptions, ColumnOptions):
    """What ``logitstore compare`` is asked; None means the default that the data or the models suggest."""

    a: Annotated[
        str,
        Option("What is measured against: a teacher's SPEC, a run folder, an ONNX file or a store.", argument=True,
               metavar="A"),
    ]  # fmt: skip
    b: Annotated[str, Option("What is measured, likewise.", argument=True, metavar="B")]
    source: Annotated[
        str | None,
        Option("The audio to compare on; with a store, the audio that it was built from. Two stores need none.",
               argument=True, metavar="SOURCE", names="source"),
    ] = None  # fmt: skip
    audio_root: AudioRoot = None
    where: Where = None
    clip_seconds: Annotated[
        float | None, CLIP_SECONDS.but(default="what the two learnt from, 10 where neither says")
    ] = None
    limit: Annotated[
        int, Option("Compare on at most so many clips, evenly over all.", group="Audio", metavar="N", least=1)
    ] = 500
    batch_size: BatchSize = 32


@dataclass(frozen=True, kw_only=True)
class ReportOptions(DeviceOptions, WorkerOptions):
    """What ``logitstore report`` is asked."""

    store: Store
    runs: Annotated[
        Sequence[str],
        Option("Run folders of students or teachers, to show how they learnt and what they cost.", argument=True,
               metavar="RUN...", names="run", many=True),
    ] = ()  # fmt: skip
    out: Annotated[
        str, Option("The page to write: one file, that loads nothing from anywhere.", group="Output", short="o",
                    metavar="FILE.html")
    ] = "report.html"  # fmt: skip
    also: Annotated[
        Sequence[str],
        Option("Another store, to be read with the first as one. Repeatable.", group="Audio", metavar="STORE",
               names="store"),
    ] = ()  # fmt: skip
    audio_root: Annotated[
        str | None,
        Option("The audio that the store was built from: the oddest clips are then shown as spectrograms.",
               group="Audio", metavar="DIR", names="audio"),
    ] = None  # fmt: skip
    teachers: Annotated[
        Teachers,
        TEACHER.but(help="Ask this teacher of the store again, to measure what of its answers each op destroys. "
                         "Repeatable; needs --audio-root."),
    ] = ()  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ListenOptions(Options):
    """What is asked of the listening page as one file."""

    listen: Annotated[
        str | None,
        Option("Write the listening page of some clips, with their sounds in it, instead of the report: one file that "
               "needs no server. Needs --audio-root.", group="Output", metavar="FILE.html"),
    ] = None  # fmt: skip
    clips: Annotated[
        str | None,
        Option("Which clips: how many, spread evenly over the store; or a table of clips; or @question, in its order. "
               "At most 1,000.", group="Output", metavar="CLIPS", default="100"),
    ] = None  # fmt: skip
    listen_views: Annotated[
        int | None,
        Option("How many views of each clip can be heard beside the original.", group="Output", least=0,
               default="0"),
    ] = None  # fmt: skip
    label_column: Annotated[
        str | None,
        Option("The column of labels in the store's clip table.", group="Output", metavar="NAME",
               default="label, labels, category or the like, where there is one"),
    ] = None  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TagOptions(EnsembleOptions):
    """What ``logitstore tag`` is asked; None means the default that the teachers suggest."""

    files: Annotated[
        Sequence[str],
        Option("Audio files of any length, sample rate and number of channels, folders of them, or patterns.",
               argument=True, metavar="AUDIO..."),
    ]  # fmt: skip
    teachers: Teachers
    classes: Annotated[
        str | None, CLASSES.but(help="Name only the classes that are named in this file, one a line.")
    ] = None
    seconds: Annotated[
        float | None,
        Option("The length of a window.", group="Windows", metavar="S", least=0.1, most=3600,
               default="of the clips that the teacher learnt from, or 10"),
    ] = None  # fmt: skip
    hop: Annotated[
        float | None,
        Option("Seconds from one window's start to the next.", group="Windows", metavar="S", least=0.1, most=3600,
               default="--seconds"),
    ] = None  # fmt: skip
    frames: Annotated[
        bool,
        Option("Say when: events in the place of windows, from what teachers say of every 40 ms. They must be some "
               "that say when, such as a run with --pool mean, max or attention.", group="Events"),
    ] = False  # fmt: skip
    median_filter: MedianFilter = 0.45
    shortest: Shortest = 0.0
    top: Annotated[int, Option("How many classes to name for a window.", group="Windows", least=1)] = 5
    threshold: Annotated[
        float | None,
        Option("Leave out classes of a lower probability.", group="Windows", metavar="P", least=0, most=1,
               default="0, and 0.5 for events and labels, which have to begin and end"),
    ] = None  # fmt: skip
    batch_size: BatchSize = 8


@dataclass(frozen=True, kw_only=True)
class CheckOptions(DeviceOptions, WorkerOptions):
    """What ``logitstore teachers check`` is asked; None means the default that the teacher suggests."""

    spec: Annotated[str, TEACHER.but(help="The teacher.", argument=True, metavar="SPEC", flag=None)]
    source: Annotated[
        Sequence[str],
        Option(
            "Audio to try it on, any source of clips; sounds that are made here without.",
            argument=True, metavar="SOURCE...", names="source", many=True,
        ),
    ] = ()  # fmt: skip
    audio_root: AudioRoot = None
    where: Where = None
    recipe: Annotated[str | Recipe, RECIPE] = AUTO
    clip_seconds: Annotated[float | None, VIEW_SECONDS] = None
    sample_rate: Annotated[
        int | None,
        Option("The sample rate of every view in Hz.", group="Views", metavar="HZ", least=1000,
               default="the teacher's"),
    ] = None  # fmt: skip
    batch_size: BatchSize = 8


@dataclass(frozen=True, kw_only=True)
class ExportOptions(WorkerOptions):
    """What ``export-student`` is asked; None means the default that the data or the student suggest.

    ``calibrate`` is audio to measure ranges on, any source of clips; without it that of ``eval_manifest`` is used.
    """

    error: ClassVar[type[RunError]] = RunError

    run: Annotated[str, Option("The run folder of a student.", argument=True, names="run")]
    out: Annotated[
        str,
        OUT.but(
            help="The file to write, OUT.onnx; what it needs to be a teacher goes to OUT.onnx.json.",
            metavar="OUT.onnx",
            old={"--onnx": None},
        ),
    ]
    masks: Annotated[
        bool,
        Option(
            "Take masks as a second input, (clips, 4): seconds from and to, Hz from and to. As a teacher the file then "
            "hears every recipe that the run itself hears."
        ),
    ] = False
    int8: Annotated[
        bool, Option("Write OUT.int8.onnx too, with 8-bit weights, and say what that costs.", group="8-bit weights")
    ] = False
    activation_bits: Annotated[
        Literal[8, 16],
        Option(
            "Bits for what flows between the layers of a convolutional student: 16 is several times nearer, of the "
            "same size, and as slow as floats.",
            group="8-bit weights",
        ),
    ] = 8  # fmt: skip
    calibrate: Annotated[
        str | None,
        Option("Audio to measure the ranges of 8-bit numbers on: a folder or a manifest; labels are not needed.",
               group="8-bit weights", metavar="AUDIO", names="source", default="that of --eval"),
    ] = None  # fmt: skip
    eval_manifest: Annotated[str | None, EVAL] = None
    label_column: Annotated[
        str | None, Option("The column of labels in that table.", group="Evaluation", metavar="NAME")
    ] = None
    label_separator: Annotated[str | None, LABEL_SEPARATOR.but(group="Evaluation")] = None
    eval_where: Annotated[str | None, EVAL_WHERE] = None
    audio_root: AudioRoot = None
    clip_seconds: Annotated[float | None, CLIP_SECONDS.but(default="as in the run's training")] = None


@dataclass(frozen=True, kw_only=True)
class ImportOptions(StoredOptions, WorkerOptions):
    """What both imports are asked."""

    out: Out
    strict: Annotated[bool, Option("Stop if a clip is missing or has another length.", group="Running")] = False


@dataclass(frozen=True, kw_only=True)
class CedImport(ImportOptions):
    """What ``logitstore import ced`` is asked; None means the default that the files suggest.

    ``frames`` is what batches were padded to, in CED's frames (1 + samples // 160).
    """

    folder: Annotated[str, Option("The folder of CED's files.", argument=True, metavar="DIR")]
    audio_root: Annotated[
        str, Option("The folder, or packed audio, that holds the clips.", group="Audio", metavar="DIR", names="audio")
    ]
    classes: ClassNames
    recipe: Annotated[
        str,
        Option("What CED was run with: ced, none, or a YAML file.", group="Views", metavar="NAME|FILE", names="recipe"),
    ] = "ced"
    frames: Annotated[
        int | None,
        Option("How many frames CED's batches were padded to.", group="Views", least=1, default="the longest clip's"),
    ] = None
    chunk_seconds: Annotated[
        float, Option("The length of CED's chunks in seconds.", group="Views", metavar="S", least=0.1)
    ] = 10.0
    epochs: Annotated[
        int | None, Option("Import only the first epochs, each of which is a view.", group="Views", least=1,
                           default="all")
    ] = None  # fmt: skip
    keep_seeds: Annotated[
        bool, Option("Keep CED's seeds beside the draws, 4 bytes a view, for `export`.", group="What is stored")
    ] = False


@dataclass(frozen=True, kw_only=True)
class NpyImport(ImportOptions):
    """What ``logitstore import npy`` is asked.

    ``array`` is a file of floats (N, C); ``names`` a text file of N names, line i the clip of row i. Without
    ``audio_root`` a clip's path is its name and its length is not known.
    """

    array: Annotated[
        str, Option("The array, one row a clip and one column a class.", argument=True, metavar="LOGITS.npy",
                    names="file")
    ]  # fmt: skip
    names: Annotated[
        str, Option("A text file: line i is the name of the clip of row i.", group="Audio", metavar="FILE",
                    names="file")
    ]  # fmt: skip
    classes: ClassNames
    scores: Annotated[
        Literal["logits", "probabilities"],
        Option("What the array holds; logits go through a sigmoid.", group="Classes"),
    ]
    audio_root: Annotated[
        str | None,
        Option("The folder, or packed audio, that holds the clips.", group="Audio", metavar="DIR", names="audio",
               default="none: the store can be queried, and nothing can be trained from it"),
    ] = None  # fmt: skip
    topk: TopK = None
    clip_seconds: ViewSeconds = 10.0
    sample_rate: SampleRate = 16000
