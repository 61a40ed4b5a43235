"""A student as one ONNX file: waveforms in, probabilities out, the log-mel inside.

The file takes any number of clips of any length that the student itself takes; a CED student cuts long clips into its
pieces within the graph. A second input, where it is asked for, takes masks. Before it is put in place, onnxruntime runs
it on batches of several sizes and lengths, and its probabilities must be the student's, under the same masks. Its
metadata say what it is, so that it is a teacher, ``onnx:FILE``; a sidecar ``FILE.json`` says the same to people.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logitstore.arrays import F32
from logitstore.errors import LogitstoreError, MissingExtraError, RunError
from logitstore.files import open_out
from logitstore.models.onnx_session import open_session, runtime_errors
from logitstore.models.sidecar import as_metadata
from logitstore.models.tagger import Tagger, probabilities
from logitstore.training.runs import Run
from logitstore.views.mel import FrontEnd
from logitstore.views.recipe import Masks

#: How far the probabilities of a file may be from the student's.
TOLERANCE = 1e-4
#: Names of the file's inputs and output.
INPUT, MASKS, OUTPUT = "waveforms", "masks", "probabilities"
_SECONDS = (0.37, 1.0, 2.5, 10.0, 15.0)
_CLIPS = (1, 3, 2)


@dataclass(frozen=True)
class Agreement:
    """How far two models are apart: the largest and the mean difference of probabilities, and what they heard.

    :param top1: the share of clips of which both say the same class before all others, in [0, 1].
    :param batches: (clips, samples) of every batch.
    """

    largest: float
    mean: float
    top1: float
    batches: tuple[tuple[int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


class _Heard(torch.nn.Module):
    """Waveforms (B, S) to probabilities (B, C), under masks (B, 4) or none."""

    def __init__(self, model: Tagger) -> None:
        super().__init__()
        self.model = model

    def forward(self, waveforms: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
        ends = None if masks is None else Masks(*masks.unbind(dim=1))
        return probabilities(self.model(waveforms, ends), self.model.scores)


def graph_of(run: Run, masks: bool = False) -> Any:
    """An ``onnx.ModelProto`` of a run's model, of any number of clips of any length; no path of this machine in it.

    :param masks: whether it takes masks, float32 (B, 4), beside the waveforms.
    :raises RunError: a model that cannot be exported. :raises MissingExtraError: the extra ``onnx`` is not installed.
    """
    _require_extra()
    rate = run.sample_rate
    clips = torch.export.Dim("clips", min=1)
    samples = torch.export.Dim("samples", min=shortest(run.model))
    example = feeds(_waveforms(2, rate + rate // 3, seed=0), run.model, masks)[-1]
    shapes = {INPUT: {0: clips, 1: samples}} | ({MASKS: {0: clips}} if masks else {})
    try:
        with quiet():
            program: Any = torch.onnx.export(
                _Heard(run.model.eval()), tuple(map(torch.from_numpy, example.values())), dynamo=True,
                dynamic_shapes=shapes, input_names=list(shapes), output_names=[OUTPUT], verbose=False,
            )  # fmt: skip
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise RunError(f"run {str(run.folder)!r} cannot be exported: {' '.join(str(error).split())[:300]}") from error
    graph = program.model_proto
    del graph.graph.value_info[:]  # some are of tensors before they were folded; onnx infers them anew
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output,
                 *graph.graph.initializer):  # fmt: skip
        part.doc_string = ""
        del part.metadata_props[:]
    describe(graph, run)
    return graph


def described(run: Run) -> dict[str, Any]:
    """What a sidecar says of an exported run, as plain JSON values."""
    said = {"classes": list(run.classes), "scores": run.scores, "sample_rate": run.sample_rate, "output": OUTPUT}
    return said | ({} if run.clip_seconds is None else {"clip_seconds": run.clip_seconds})


def describe(graph: Any, run: Run) -> None:
    """Write what a run is into the metadata of its ``onnx.ModelProto``: all of its sidecar, front end and fill."""
    del graph.metadata_props[:]
    for key, value in as_metadata(described(run) | run.model.contract()).items():
        graph.metadata_props.add(key=key, value=value)


def shortest(model: Tagger) -> int:
    """The fewest samples that a model's front end takes."""
    front_end: FrontEnd = model.front_end
    return front_end.n_fft // 2 + 1 if front_end.center else front_end.n_fft


def batches_to_check(model: Tagger) -> list[F32]:
    """Waveforms float32 (B, S) of several sizes and lengths: the shortest clip, and either side of every cut."""
    front_end = model.front_end
    lengths = [shortest(model), *(round(seconds * front_end.sample_rate) for seconds in _SECONDS)]
    piece = model.contract().get("frames")
    if piece is not None:
        lengths += [(piece * count - 1) * front_end.hop_length + more for count in (1, 2) for more in (0, 160)]
    return [_waveforms(_CLIPS[number % len(_CLIPS)], samples, seed=number) for number, samples in enumerate(lengths, 1)]


def feeds(waveforms: F32, model: Tagger, masked: bool) -> list[dict[str, F32]]:
    """What a file is given to hear a batch: once as it is, and where it takes masks, once more under some."""
    if not masked:
        return [{INPUT: waveforms}]
    nothing = np.zeros((len(waveforms), 4), dtype=np.float32)
    return [{INPUT: waveforms, MASKS: masks} for masks in (nothing, _masks(waveforms, model))]


def compare(content: bytes, model: Tagger, batches: list[F32]) -> Agreement:
    """What onnxruntime makes of a file against what the model says, over batches of waveforms.

    A file that takes masks is heard under some, as the model is.

    :raises RunError: the file cannot be run, or gives something that is no probability.
    """
    session = open_session(content)
    masked = len(session.get_inputs()) > 1
    differences, same = [], []
    for waveforms in batches:
        given = feeds(waveforms, model, masked)[-1]
        try:
            (found,) = session.run([OUTPUT], given)
        except runtime_errors() as error:
            raise RunError(
                f"the exported student fails on {waveforms.shape[0]} clips of {waveforms.shape[1]} samples: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
        with torch.inference_mode():
            expected = _Heard(model)(*map(torch.from_numpy, given.values())).numpy()
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise RunError(
                f"the exported student gives {found.shape} values for {waveforms.shape[0]} clips of "
                f"{waveforms.shape[1]} samples, or some that are not finite; {expected.shape} probabilities were due"
            )
        differences.append(np.abs(found - expected).ravel())
        same.append(found.argmax(axis=1) == expected.argmax(axis=1))
    joined = np.concatenate(differences)
    shapes = tuple((int(batch.shape[0]), int(batch.shape[1])) for batch in batches)
    return Agreement(float(joined.max()), float(joined.mean()), float(np.concatenate(same).mean()), shapes)


def checked(run: Run, masks: bool = False) -> tuple[bytes, Agreement]:
    """The ONNX file of a run, as bytes, and how well it agrees with the run.

    :param masks: whether it takes masks beside the waveforms.
    :raises RunError: it does not, to :data:`TOLERANCE`.
    """
    content: bytes = graph_of(run, masks).SerializeToString(deterministic=True)
    found = compare(content, run.model, batches_to_check(run.model))
    if found.largest > TOLERANCE:
        raise RunError(
            f"run {str(run.folder)!r}: the exported file differs from the student by {found.largest:.2g} and may by "
            f"{TOLERANCE:g}; nothing was written"
        )
    return content, found


def place(content: bytes, path: Path, run: Run) -> None:
    """Write a file and its sidecar ``FILE.json``, each whole or not at all, the sidecar first.

    :raises RunError: they cannot be written.
    """
    document = (json.dumps(described(run), indent=2, ensure_ascii=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, part in ((path.with_name(path.name + ".json"), document), (path, content)):
            with open_out(target) as file:
                file.write(part)
    except OSError as error:
        if isinstance(error, LogitstoreError):
            raise
        raise RunError(f"--out {str(path)!r} cannot be written: {error.strerror or error}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what the exporter and the quantiser say of their own inner workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _waveforms(clips: int, samples: int, seed: int) -> F32:
    """Tones of every pitch over noise, from quiet to loud, and silence; float32 (clips, samples)."""
    rng = np.random.default_rng(seed)
    at = np.arange(samples)
    waveforms = np.zeros((clips, samples), dtype=np.float32)
    for clip in range(clips if clips < 3 else clips - 1):
        tone = np.sin(at * rng.uniform(0.01, 2.5) * (1 + at / samples))
        waveforms[clip] = 10 ** rng.uniform(-2, -0.3) * (tone + rng.normal(0, 0.1, samples))
    return waveforms


def _masks(waveforms: F32, model: Tagger) -> F32:
    """Masks float32 (clips, 4) of many kinds: up to all of the time and of the frequencies, some of nothing at all."""
    rng = np.random.default_rng(len(waveforms) * waveforms.shape[1])
    front_end: FrontEnd = model.front_end
    seconds = waveforms.shape[1] / front_end.sample_rate
    ends = np.sort(rng.uniform(0, 1, (len(waveforms), 2, 2)), axis=2) * [[seconds], [front_end.f_max]]
    ends[np.arange(len(waveforms)) % 4 == 3] = 0
    hop = front_end.hop_length / front_end.sample_rate
    ends[:, 0] = np.round(ends[:, 0] / hop) * hop  # on the centres of frames, where rounding matters
    result: F32 = ends.reshape(-1, 4).astype(np.float32)
    return result


def _require_extra() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "onnx", "exporting a student") from error
