"""``logitstore verify``."""

from __future__ import annotations

import json
from typing import Any

import click

from logitstore.cli.common import stderr
from logitstore.errors import CorruptStoreError


@click.command("verify")
@click.argument("store")
@click.option("--partial", is_flag=True, help="Blocks may be missing: the build is not finished.")
@click.option("--audio-root", metavar="DIR", help="Replay views from this audio and compare what they sound like.")
@click.option("--replay", type=int, metavar="N", help="Number of views to replay.  [default: 16]")
@click.option(
    "--teacher", "teachers", multiple=True, metavar="SPEC", help="Ask this teacher of the store again. Repeatable."
)
@click.option("--recompute", type=int, metavar="N", help="Number of views to ask the teachers of.  [default: 16]")
@click.option("--device", default="auto", show_default=True, help="Of the teachers: auto, cpu, cuda or cuda:N.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def verify_command(as_json: bool, **options: Any) -> None:
    """Check everything that STORE holds; exit code 1 if anything is wrong.

    Digests of every object, shapes, codes and draws of every block, counts against the clip table, missing blocks. With
    --audio-root also whether views still sound as they did; with --teacher whether the teachers still say the same.

    \b
    Example:
      logitstore verify store
      logitstore verify store --audio-root audio --replay 100 --teacher ced:ced_base.pt --recompute 32
    """
    from logitstore.jobs.verify.job import VerifyOptions, verify

    with stderr.status("verifying") as shown:
        found = verify(
            VerifyOptions(**options), lambda done, total: shown.update(f"verifying: {done:,} of {total:,} blocks")
        )
    click.echo(json.dumps(found.to_dict(), ensure_ascii=False) if as_json else found.render())
    if found.problems:
        count = len(found.problems)
        raise CorruptStoreError(
            f"{found.location} is not as it was written: {count} problem{'s' * (count > 1)}, listed above; delete the "
            "commits of the damaged blocks and build again to make them anew, and restore what is no block from a copy"
        )
