"""``logitstore repair``."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote

from logitstore.cli.command import answer, command, next_steps, resumable
from logitstore.errors import CorruptStoreError
from logitstore.jobs.options import RepairOptions
from logitstore.options import JsonOptions


@dataclass(frozen=True, kw_only=True)
class _Repair(JsonOptions, RepairOptions):
    pass


@command("repair", _Repair)
def repair_command(options: _Repair) -> None:
    """Make again what is damaged or missing of STORE, and only that; exit code 1 if something stays lost.

    With the audio and the teachers that it was built from, the store ends byte for byte as it was; others are refused.
    Without them it says what is lost; --drop removes that, so that the rest can be used. An interrupted repair is run
    again.

    \b
    Example:
      logitstore repair store
      logitstore repair store --audio-root audio --teacher ced:ced_base.pt
      logitstore repair store --drop
    """
    from logitstore.cli.progress import of_total
    from logitstore.jobs.repair import repair

    with resumable(), of_total("repairing", "blocks") as told:
        found = repair(options, told)
    wrong = None
    if found.lost:
        wrong = CorruptStoreError(
            f"{found.location} is not whole: what is lost is listed above; give the audio and the teachers that it was "
            "built from (SOURCE or --audio-root, and --teacher), or use the rest of it with --drop"
        )
    answer(options, found.to_dict(), found.render(), wrong)
    place = quote(options.store)
    next_steps(f"logitstore repair {place} --drop" if wrong is not None else f"logitstore verify {place}")
    if wrong is not None:
        raise wrong
