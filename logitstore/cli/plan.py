"""``logitstore plan``."""

from __future__ import annotations

from dataclasses import dataclass

from logitstore.cli.command import answer, command
from logitstore.jobs.options import PlanOptions
from logitstore.options import JsonOptions


@dataclass(frozen=True, kw_only=True)
class _Plan(PlanOptions, JsonOptions):
    pass


@command("plan", _Plan)
def plan_command(options: _Plan) -> None:
    """Say what a build will take: time, money, bytes, objects and requests; and the memory of a training from it.

    Rates are of the teachers alone. Nothing is read but --like, and nothing is written.

    \b
    Example:
      logitstore plan --clips 2e6 --views 10 --teacher ced-base --rate 900 --price 2.5
      logitstore plan --clips 50000 --teacher runs/teacher
      logitstore plan --clips 2e6 --like store --teacher runs/teacher --teacher other --rate measured --rate 120
    """
    from logitstore.jobs.plan import plan

    found = plan(options)
    answer(options, found.to_dict(), found.render())
