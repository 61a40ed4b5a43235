"""``docs/sql.md``, from the question files: ``python -m logitstore.queries.cookbook > docs/sql.md``."""

from __future__ import annotations

from collections.abc import Iterator

from logitstore.queries import Question, questions

#: The questions by what one wants to know, in the order of the page; those that are in none come last.
PARTS = {
    "What is in the store": ("classes", "hours", "labels", "cooccurrence", "coverage", "failures"),
    "What the teachers are sure of": ("measures", "uncertain_clips", "topk_tail"),
    "What augmentation does": ("survival", "view_disagreement", "torn", "draws"),
    "When it sounds": ("events", "longest_events"),
    "Where members disagree": ("member_disagreement", "disputed_clips", "member_measures"),
    "What is odd in the data": ("label_errors", "near_duplicates", "duplicates", "near_silent", "loudest"),
    "Subsets to train on": ("balanced", "balanced_labels"),
}

_BEGIN = """# SQL cookbook

What a store holds can be asked in SQL, and these questions are ready. Each is a file of `logitstore/queries`, with
the SQL that stands here, so it is also an example to start from. This page is made of those files by `python -m
logitstore.queries.cookbook`; a test compares the two.

## How to ask

```console
$ logitstore inspect store @
$ logitstore inspect store @classes -p limit 5
$ logitstore inspect store "SELECT path, entropy FROM views JOIN clips USING (clip) ORDER BY entropy DESC LIMIT 5"
```

`@` lists every question with its parameters. In Python, `store.sql("@classes", {"limit": 5})` gives a pyarrow table.

## How to write your own

Every table but `recipe`, `teachers` and `blocks` has the column `clip`, the number of a clip, and that joins them.

- `clips`, a row a clip: `path`, `start` and `length` in frames of its file, `rate` in Hz, and the columns of your
  manifest, such as labels.
- `views`, a row a view of a clip: what was drawn for it, in plain units, `entropy` in nats, and its first class
  (`top1`, `top1_probability`). Of a store that was built with `--quality` also how many classes the view has
  (`kept_classes`), and the probability that stands for each of the others (`rest_probability`).
- `topk`, a row for each of the k classes of a view, of a store that was built with `--quality` for each that the view
  keeps: `rank` from 1, `class`, `class_index`, `probability`. Where members were kept it has `disagreement` too: how
  far the members are apart about this class, in nats.
- `frames`: when a class is how likely, `start_s` and `end_s` in seconds of the view, where the store was built with
  `--frames`.
- `members`: what each member said of these classes, where that was kept.
- `levels`: how loud a clip is, where you gave `--audio-root`. Every row that is asked for is decoded, so narrow it by
  `clip`.
- `recipe`: what the columns of `views` mean, and between which values they are drawn.
- `failures`, `blocks`, `teachers`: what is missing, how the store lies on disk, who spoke.

Four things make most questions easy.

1. **From views to a clip.** A class that is not in the top k of a view has no row there, so `avg(probability)` is too
   high. Take `sum(probability)` and divide it by the number of the clip's views.
2. **By number first, by name last.** Grouping by `class_index` is faster than by `class`; `any_value(class)` brings
   the name back.
3. **Ask for few columns.** Only what a query names is decoded. `views` without `entropy` and `top1` does not touch
   the targets, and a condition on `clip` or `view` leaves out whole blocks.
4. **Group before you join.** A query may take 384 MB of memory, 500 MB of temporary files and 60 s; `--memory`,
   `--temp-space` and `--timeout` raise that.

A query that you need often is a file: put it into `logitstore/queries` of your checkout, with a line of comment that
asks it, and it is a question ([how](../CONTRIBUTING.md#a-question)). `$name` is a parameter. `"$label"`, in quotes,
takes the name of a column of `clips`, so that one question serves every manifest: `-p label category`. Labels may be
one text a clip, several with a separator (`-p separator ,`), or lists.
"""


def cookbook() -> str:
    """The text of the page."""
    known = questions()
    parts = {part: [known[name] for name in names] for part, names in PARTS.items()}
    named = {name for names in PARTS.values() for name in names}
    if rest := [each for name, each in known.items() if name not in named]:
        parts["More"] = rest
    lines = [_BEGIN]
    for part, each in parts.items():
        lines += [f"## {part}", ""]
        for question in each:
            lines += [*_section(question), ""]
    return "\n".join(lines).rstrip()


def _section(question: Question) -> Iterator[str]:
    yield from (f"### {question.asks}", "", question.tells, "")
    for each in question.parameters:
        default = "" if each.default is None else f" (default `{each.default}`)"
        yield f"- `-p {each.name}`{default}: {each.meaning}"
    if question.parameters:
        yield ""
    for table, remedy in question.needs.items():
        yield from (f"Needs the table `{table}`: {remedy}.", "")
    audio = " --audio-root audio" if "levels" in question.needs else ""
    keep = " --out subset.parquet" if question.name.startswith("balanced") else ""
    yield from ("```console", f"$ logitstore inspect store{audio} @{question.name}{keep}", "```", "")
    yield from ("```sql", question.sql, "```")


if __name__ == "__main__":
    print(cookbook())
