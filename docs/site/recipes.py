"""The pictures of ``docs/recipes.md``: one clip, and a view of it for every op.

    python docs/site/recipes.py baby_cry/1-211527-B.ogg dog_bark/3-136288-A.ogg --out docs/pictures

The first file is the clip, the second the one that ``mixup`` mixes in. Every view is drawn and rendered as in a build,
by a recipe of this one op, at full strength. Needs the extra ``report``.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image, ImageDraw

from logitstore.audio.decode import resample_clip
from logitstore.views.ops import OPS, Place
from logitstore.views.picture import boxes, log_mel, png
from logitstore.views.recipe import draw, parse_recipe
from logitstore.views.render import pad, render

RATE, SECONDS = 16_000, 5
#: Parameters that make an op plain to see; every other one has its default.
STRONG: dict[str, dict[str, object]] = {
    "gain": {"min_db": -18, "max_db": -12},
    "noise": {"probability": 1.0, "min_snr_db": 5, "max_snr_db": 10},
    "mixup": {"probability": 1.0, "min_weight": 0.4},
    "roll": {"probability": 1.0},
    "silence": {"max_seconds": 1.92},
    "time_mask": {"max_seconds": 1.92},
}


def picture(waveform: np.ndarray, loudest: float, masks: object = None) -> Image.Image:
    """Twice as large as the cells, with the masks as boxes."""
    image = Image.open(io.BytesIO(png(log_mel(waveform, RATE), loudest))).convert("RGB")
    image = image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image, "RGBA")
    for box in boxes(masks, SECONDS, RATE):  # type: ignore[arg-type]
        left, top = box.left * image.width, box.top * image.height
        edges = (left, top, left + box.width * image.width - 1, top + box.height * image.height - 1)
        pen.rectangle(edges, fill=(255, 255, 255, 90), outline=(255, 255, 255, 255), width=2)
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("partner")
    parser.add_argument("--out", default="docs/pictures")
    parser.add_argument("--seed", type=int, default=8)
    chosen = parser.parse_args()
    samples = RATE * SECONDS
    clip, partner = (heard(file)[:samples] for file in (chosen.clip, chosen.partner))
    original = pad([clip], samples)[0][0].numpy()
    loudest = float(log_mel(original, RATE).max())
    pictures = {"clip": picture(original, loudest)}
    for name in sorted(OPS):
        recipe = parse_recipe([{"op": name, **STRONG.get(name, {})}])
        place = Place(samples, RATE, 2)
        draws = draw(
            recipe, seed=chosen.seed, keys=[("clip", 0, samples)], view=0, lengths=np.array([len(clip)]), place=place,
            shard_rows=2,
        )  # fmt: skip
        waveforms, masks = render([clip], draws, recipe, samples, sample_rate=RATE, partners=[partner])
        pictures[name] = picture(waveforms[0].numpy(), loudest, masks)
        shown = {column.name: column.values(draws.columns).tolist()[0] for column in recipe.sql_columns}
        print(name, shown)
    for name, image in pictures.items():
        image.quantize(48).save(Path(chosen.out) / f"op-{name}.png", optimize=True)


def heard(file: str) -> np.ndarray:
    """A file's samples at the rate of the views, float32 (n,)."""
    samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    return resample_clip(samples.mean(axis=1), rate, RATE)


if __name__ == "__main__":
    main()
