"""Contact sheets: a few samples of every class on one image, for a person to look at."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spikeback.data.images import fit
from spikeback.files import write_atomic

Item = TypeVar("Item")
TILE, GAP, LABEL = 72, 4, 150  # pixels: a sample's side, the space around it, the column of class names
MOST = 20  # classes shown
GROUND, OFF, ON = (16, 18, 26), (86, 180, 233), (255, 176, 0)  # dark; sky blue and orange, told apart by every eye


def contact_sheet(samples: Mapping[str, Sequence[Tensor]], path: str | Path) -> Path:
    """Write a PNG with one row a class; a sample is an image, uint8 (C, H, W), or frames of events (T, 2, H, W).

    Of more than 20 classes, 20 are shown, evenly spaced. Raises UsageError if it cannot write.
    """
    names = spread(list(samples), MOST)
    columns = max((len(samples[name]) for name in names), default=1)
    size = LABEL + columns * (TILE + GAP) + GAP, len(names) * (TILE + GAP) + GAP
    sheet = Image.new("RGB", size, "white")
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, name in enumerate(names):
        top = GAP + row * (TILE + GAP)
        text.text((GAP, top + TILE // 2), name[:20], fill="black", font=font, anchor="lm")
        for column, sample in enumerate(samples[name]):
            tile = fit(image(sample), TILE, TILE).permute(1, 2, 0).numpy()
            sheet.paste(Image.fromarray(tile), (LABEL + column * (TILE + GAP), top))
    data = io.BytesIO()
    sheet.save(data, "png", optimize=True)
    return write_atomic(path, data.getvalue())


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of them, evenly spaced."""
    step = max(len(items) / most, 1)
    return [items[int(i * step)] for i in range(min(len(items), most))]


def image(sample: Tensor) -> Tensor:
    """A sample as RGB, uint8 (3, H, W); frames are summed over time, OFF is blue, ON orange."""
    if sample.ndim == 3:
        return sample.expand(3, -1, -1)
    counts = sample.double().sum(0)  # (2, H, W)
    level = (counts / counts.max().clamp(min=1)).sqrt()
    ground, off, on = (torch.tensor(colour, dtype=torch.float64)[:, None, None] for colour in (GROUND, OFF, ON))
    mixed = ground + level[0] * (off - ground) + level[1] * (on - ground)
    return mixed.clamp(0, 255).round().to(torch.uint8)
