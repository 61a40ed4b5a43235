"""Every error that a user can meet, as one small tree.

    LogitstoreError                     base; a failed job, exit code 1
    ├── UsageError (ValueError)         what was asked for cannot be right; exit code 2
    │   ├── SourceError                 audio sources and manifests of clips
    │   ├── RecipeError                 recipe files
    │   ├── TeacherError                teacher specs, classes, checkpoints
    │   ├── RunError                    run folders and trainer options
    │   ├── QueryError                  SQL
    │   │   └── QueryLimitError         SQL that takes more time, memory or space than it may; exit code 1
    │   ├── NotAStoreError              a path that is no store, or one of an unknown format version
    │   ├── MismatchError               a store that exists and does not fit what was asked
    │   └── MissingExtraError (ImportError)   an optional dependency is not installed
    ├── AudioError (ValueError)         one clip cannot be decoded
    ├── StoreError (OSError)            a store cannot be read or written
    │   └── CorruptStoreError           an object is missing, or is not the one that was committed
    ├── OutputError (OSError)           a file of results cannot be written to its end
    └── ModelOutputError (ValueError)   a teacher failed, or gave NaN, a wrong shape, or values outside [0, 1]

A message is one line: what is wrong, what was found, what is allowed, what to do.
"""

from __future__ import annotations


class LogitstoreError(Exception):
    """Base of every error of this project."""

    exit_code = 1


class UsageError(LogitstoreError, ValueError):
    """What was asked for cannot be right, whatever the data."""

    exit_code = 2


class SourceError(UsageError):
    """A source of clips is missing, empty, ambiguous, or leaves its audio root."""


class RecipeError(UsageError):
    """A recipe names an unknown op, or a range that no draw can satisfy."""


class TeacherError(UsageError):
    """A teacher spec, its file, or its classes cannot be used as asked."""


class RunError(UsageError):
    """A run folder or an option of a training cannot be used as asked."""


class QueryError(UsageError):
    """A query is not one readable SELECT over the tables of a store."""


class QueryLimitError(QueryError):
    """A query takes more time, memory or temporary space than it may."""

    exit_code = 1


class NotAStoreError(UsageError):
    """A path holds no store, or one of a format version that this release does not know."""


class MismatchError(UsageError):
    """A store exists and differs from what the command describes."""


class MissingExtraError(UsageError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}; install it with: pip install 'logitstore[{extra}]'")


class AudioError(LogitstoreError, ValueError):
    """One clip cannot be decoded; a build records the reason and goes on."""


class StoreError(LogitstoreError, OSError):
    """A store cannot be read or written."""


class CorruptStoreError(StoreError):
    """An object of a store is missing, or is not the one that was committed."""


class OutputError(LogitstoreError, OSError):
    """A file of results cannot be written to its end."""


class ModelOutputError(LogitstoreError, ValueError):
    """A model's output is not an array of probabilities of the promised shape; ``row`` says where in its batch."""

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


class MemoryShortError(ModelOutputError):
    """A model has no memory left for a batch."""
