"""The pictures of ``logitstore look`` and ``logitstore show`` in the documents: ``look.svg`` and ``show.png``.

    python -m benchmarks.pictures STORE AUDIO --clip 375 --view original --view 0 --view 4 --out docs/pictures

Those in ``docs/pictures`` are of ESC-10's 400 clips, six views each of the recipe ``ced``, and three ``cnn4`` that were
trained on folds 1 to 4, with ``--keep-members``.
"""

from __future__ import annotations

import argparse
import io
import re
from html import escape
from pathlib import Path

from rich.console import Console

import logitstore
from logitstore.cli.look import draw
from logitstore.cli.screen import Screen
from logitstore.jobs.show import chosen, find_clip, write_figure
from logitstore.store.look import look


def look_svg(store: logitstore.Store) -> str:
    """What ``logitstore look`` prints on a terminal of 80 columns, as an SVG that needs nothing from elsewhere."""
    console = Console(
        file=io.StringIO(), record=True, width=80, force_terminal=True, color_system="truecolor", highlight=False,
        markup=False, emoji=False, soft_wrap=True,
    )  # fmt: skip
    screen = Screen(console)
    draw(look(store), screen)
    screen.print()
    console.print()  # or its last line is cut
    drawn = console.export_svg(title=f"logitstore look {store.location}", unique_id="look")
    alone = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    title = f"<title>What logitstore look prints of the store {escape(store.location)}</title>"
    return re.sub(r"(<svg [^>]*>)", lambda head: f"{head[0]}\n    {title}", alone, count=1)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("audio")
    parser.add_argument("--clip", default="0")
    parser.add_argument("--view", action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    asked = parser.parse_args()
    store = logitstore.open_store(asked.store, audio_root=asked.audio)
    (asked.out / "look.svg").write_text(look_svg(store) + "\n")
    clip = find_clip(store, asked.clip)
    write_figure(clip, chosen(clip, asked.view), str(asked.out / "show.png"))


if __name__ == "__main__":
    main()
