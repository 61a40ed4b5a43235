"""The documentation as a site: ``python docs/site/make.py`` writes the folder ``site``; a broken link is an error.

The pages are the Markdown files as they stand, which read the same on a code host. What a site does otherwise is done
to a copy of them, in ``build/docs``: the README and its neighbours lie beside the pages of ``docs``, equations become
drawings that need no script and no network, and the comments of ``api.md`` become what the docstrings say.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
#: Documents that lie beside the packages, and their names on the site.
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "telling.md",
    "examples/README.md": "examples.md",
    "LICENSE": "licence.txt",
    "NOTICE": "notice.txt",
    "CITATION.cff": "citation.txt",
}
_LINK = re.compile(r"(\]\(|src=\"|href=\")([^)\s\"#]+)")
_MATH = re.compile(r"^```math\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
_DOCSTRING = re.compile(r"^<!-- (::: [\w.]+) -->$", re.MULTILINE)
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def copy(pages: Path) -> None:
    """The pages of the site, in a folder of their own."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(REPOSITORY / "docs", pages, ignore=shutil.ignore_patterns("site", "*.py", "__pycache__"))
    shutil.copy(Path(__file__).parent / "site.css", pages)
    for name, here in BESIDE.items():
        shutil.copy(REPOSITORY / name, pages / here)
    for page in sorted(pages.rglob("*.md")):
        # a page's own folder in the repository: links that lead out of it are those to be changed
        name = page.relative_to(pages).as_posix()
        beside = next((Path(file) for file, here in BESIDE.items() if here == name), None)
        text = _outside_blocks(page.read_text(), beside or Path("docs") / name)
        page.write_text(_DOCSTRING.sub(r"\1", _MATH.sub(lambda found: drawn(found[1]), text)))


def _outside_blocks(text: str, file: Path) -> str:
    """The text of a document with its links as the site has them; blocks of code stay as they are."""

    def moved(link: re.Match[str]) -> str:
        if "://" in link[2] or link[2].startswith("mailto:"):
            return link[0]
        target = Path(os.path.normpath(file.parent / link[2])).as_posix()
        there = BESIDE.get(target, target.removeprefix("docs/"))
        here = Path(BESIDE.get(file.as_posix(), file.as_posix().removeprefix("docs/"))).parent
        return link[1] + Path(os.path.relpath(there, here)).as_posix()

    parts, start = [], 0
    for block in _BLOCK.finditer(text):
        parts += [_LINK.sub(moved, text[start : block.start()]), block[0]]
        start = block.end()
    return "".join([*parts, _LINK.sub(moved, text[start:])])


def drawn(equation: str) -> str:
    """An equation in TeX as a drawing in the colour of the text, one line below the other; its source is read aloud."""
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import math_to_image

    lines = []
    with matplotlib.rc_context(
        {"svg.fonttype": "path", "svg.hashsalt": "logitstore", "mathtext.fontset": "cm", "savefig.facecolor": "none"}
    ):
        for line in equation.replace("\n", " ").split(r"\\"):
            out = io.BytesIO()
            math_to_image(f"${line.strip()}$", out, prop=FontProperties(size=14), format="svg", color="#010203")
            svg = out.getvalue().decode()
            svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
            label = line.strip().replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
            svg = svg.replace("#010203", "currentColor").replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
            # ids are made from what is drawn, so the same glyph has the same id in every equation of a page
            lines.append(re.sub(r"\s*\n\s*", " ", svg))
    return '<div class="equation">\n' + "\n".join(f"<p>{line}</p>" for line in lines) + "\n</div>"


def main() -> int:
    copy(REPOSITORY / "build" / "docs")
    shutil.rmtree(REPOSITORY / "site", ignore_errors=True)
    zensical = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(
        zensical, cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)}, check=False
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
