"""``logitstore verify``."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote

from logitstore.cli.command import answer, command, next_steps
from logitstore.errors import CorruptStoreError
from logitstore.jobs.options import VerifyOptions
from logitstore.options import JsonOptions


@dataclass(frozen=True, kw_only=True)
class _Verify(JsonOptions, VerifyOptions):
    pass


@command("verify", _Verify)
def verify_command(options: _Verify) -> None:
    """Check everything that STORE holds; exit code 1 if anything is wrong.

    Digests of every object, shapes, codes and draws of every block, counts against the clip table, missing blocks. With
    --audio-root also whether views still sound as they did; with --teacher whether the teachers still say the same.

    \b
    Example:
      logitstore verify store
      logitstore verify store --sample 1% --state store.checked
      logitstore verify store --audio-root audio --replay 100 --teacher ced:ced_base.pt --recompute 32
    """
    from logitstore.cli.afterwards import AUDIO, with_teachers
    from logitstore.cli.progress import of_total
    from logitstore.jobs.verify.job import verify

    with of_total("verifying", "blocks") as told:
        found = verify(options, told)
    wrong = None
    if found.problems:
        count = len(found.problems)
        wrong = CorruptStoreError(
            f"{found.location} is not as it was written: {count} problem{'s' * (count > 1)}, listed above; make it "
            "whole again with: logitstore repair"
        )
    answer(options, found.to_dict(), found.render(), wrong)
    root, teachers = options.audio_root, with_teachers(options.teachers or ["TEACHER"])
    if wrong is not None:
        audio = AUDIO if root is None else quote(root)
        next_steps(f"logitstore repair {quote(options.store)} --audio-root {audio} {teachers}")
    elif root is None:
        next_steps(f"logitstore verify {quote(options.store)} --audio-root {AUDIO}")
    else:
        next_steps(f"train-student {quote(options.store)} --audio-root {quote(root)} --out student")
    if wrong is not None:
        raise wrong
