"""Sessions of onnxruntime, for exported students and for teachers alike."""

from __future__ import annotations

from typing import Any

import torch


def open_session(model: str | bytes, device: str = "cpu") -> Any:
    """A session on as many threads as torch uses; on a GPU only where onnxruntime has been built for one.

    :param model: a file's name or its content. :param device: "cpu" or "cuda".
    :raises ImportError: onnxruntime is not installed. One of :func:`runtime_errors`: not a model that it can run.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    wanted = ["CUDAExecutionProvider"] if device == "cuda" and "CUDAExecutionProvider" in available else []
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=[*wanted, "CPUExecutionProvider"])


def runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises; its errors have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile", "NotImplemented")
    named = tuple(getattr(state, name) for name in (*names, "EPFail", "RuntimeException"))
    return (*named, RuntimeError, ValueError)
