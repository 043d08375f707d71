"""Event frames as an animation, for a person to look at."""

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from spikeback.errors import UsageError
from spikeback.files import as_path, write_atomic

GROUND, OFF, ON = (16, 18, 26), (86, 180, 233), (255, 176, 0)  # dark; sky blue and orange, told apart by every eye
LEVELS = 16  # of brightness a polarity: two polarities make the 256 colours that GIF allows
SMALLEST = 256  # pixels: smaller frames are enlarged by a whole factor


def animate(frames: Tensor, path: str | Path, ms: int = 100) -> Path:
    """Write frames (T, 2, H, W), channel 0 OFF, channel 1 ON, as an endless animation, `ms` milliseconds a frame.

    `path` ends in .gif or .png. OFF is blue, ON is orange, on a dark ground; brightness is the square root of the count
    over the 99th percentile of all counts but 0. Raises UsageError for other frames or endings, or if it cannot write.
    """
    path = as_path(path)
    if path.suffix not in (".gif", ".png"):
        raise UsageError(f"{path} must end in .gif or .png")
    if frames.ndim != 4 or frames.shape[1] != 2 or not frames.numel():
        raise UsageError(f"frames of shape {tuple(frames.shape)} cannot be shown; expected (T, 2, H, W)")
    counts = frames.detach().cpu().double()
    lit = counts[counts > 0].sort().values
    brightest = lit[int(0.99 * (len(lit) - 1))] if len(lit) else 1.0
    level = ((counts / brightest).clamp(0, 1).sqrt() * (LEVELS - 1)).ceil().to(torch.uint8)  # an event alone shows
    scale = max(1, SMALLEST // max(frames.shape[2:]))
    codes = (level[:, 0] * LEVELS + level[:, 1]).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    images = [Image.fromarray(code.numpy()) for code in codes]
    for image in images:
        image.putpalette(_palette())
    data, rest = io.BytesIO(), images[1:]
    images[0].save(data, path.suffix[1:], save_all=True, append_images=rest, duration=ms, loop=0, optimize=False)
    return write_atomic(path, data.getvalue())


def _palette() -> bytes:
    """Colour of code off * LEVELS + on, RGB."""
    share = torch.arange(LEVELS)[:, None] / (LEVELS - 1)
    ground, off, on = (torch.tensor(colour, dtype=torch.float32) for colour in (GROUND, OFF, ON))
    mix = ground + (share * (off - ground))[:, None] + (share * (on - ground))[None]
    return bytes(mix.clamp(0, 255).round().to(torch.uint8).flatten().tolist())
