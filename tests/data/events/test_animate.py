from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikeback.data.events import animate as exported
from spikeback.data.events.animate import GROUND, OFF, ON, animate
from spikeback.errors import UsageError

# Machado, Oliveira, Fernandes 2009: what protanopes, deuteranopes and tritanopes see of (R, G, B)
SIGHT = {
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def shown(path: Path) -> np.ndarray:
    """Every frame as a viewer composes it: (T, H, W, 3)."""
    with Image.open(path) as image:
        frames = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            frames.append(np.array(image.convert("RGB")))
    return np.stack(frames)


@pytest.fixture
def frames() -> torch.Tensor:
    """Four steps of 2 x 3 pixels: OFF at (0, 1), ON at (1, 2), nothing, ON at half brightness at (0, 0)."""
    frames = torch.zeros(4, 2, 2, 3)
    frames[0, 0, 0, 1] = frames[1, 1, 1, 2] = 16
    frames[3, 1, 0, 0] = 4
    return frames


@pytest.mark.parametrize("ending", ["gif", "png"])
def test_off_is_blue_and_on_is_orange_on_a_dark_ground(frames: torch.Tensor, tmp_path: Path, ending: str) -> None:
    path = animate(frames, tmp_path / f"recording.{ending}", ms=50)
    pixels = shown(path)
    assert pixels.shape == (4, 2 * 85, 3 * 85, 3)
    small = pixels[:, ::85, ::85]
    assert np.array_equal(small.repeat(85, 1).repeat(85, 2), pixels)  # enlarged without a blur
    expected = np.full_like(small, GROUND)
    expected[0, 0, 1], expected[1, 1, 2] = OFF, ON
    dim = small[3, 0, 0].copy()
    small[3, 0, 0] = GROUND
    assert np.array_equal(small, expected)
    assert np.abs(dim - (np.array(GROUND) + np.array(ON)) / 2).max() < 10
    with Image.open(path) as image:
        assert (image.info["duration"], image.info["loop"]) == (50, 0)


def test_large_frames_are_not_enlarged(tmp_path: Path) -> None:
    assert shown(animate(torch.ones(2, 2, 200, 150), tmp_path / "a.png")).shape[1:] == (200, 150, 3)


def test_a_single_event_among_many_is_still_seen(tmp_path: Path) -> None:
    frames = torch.zeros(1, 2, 256, 256)
    frames[0, 1, 0], frames[0, 0, 5, 5] = 100_000, 1
    assert np.any(shown(animate(frames, tmp_path / "a.png"))[0, 5, 5] != GROUND)


@pytest.mark.parametrize("ending", ["gif", "png"])
def test_a_recording_without_events_is_dark(tmp_path: Path, ending: str) -> None:
    assert np.all(shown(animate(torch.zeros(3, 2, 4, 4), tmp_path / f"a.{ending}")) == GROUND)


@pytest.mark.parametrize("sight", SIGHT.values(), ids=SIGHT)
def test_every_eye_tells_the_colours_apart(sight: list[list[float]]) -> None:
    seen = np.array([GROUND, OFF, ON]) @ np.array(sight).T
    assert all(np.linalg.norm(one - other) > 80 for one, other in combinations(seen, 2))


def test_the_same_frames_give_the_same_bytes(frames: torch.Tensor, tmp_path: Path) -> None:
    assert exported is animate
    assert animate(frames, tmp_path / "a.gif").read_bytes() == animate(frames, tmp_path / "b.gif").read_bytes()


@pytest.mark.parametrize(
    ("shape", "name", "message"),
    [
        ((1, 2, 3, 3), "a.jpg", "a.jpg must end in .gif or .png"),
        ((2, 3, 3), "a.gif", r"shape \(2, 3, 3\) cannot be shown; expected \(T, 2, H, W\)"),
        ((1, 3, 3, 3), "a.gif", "cannot be shown"),
        ((0, 2, 3, 3), "a.gif", "cannot be shown"),
    ],
)
def test_what_cannot_be_shown_is_named(tmp_path: Path, shape: tuple[int, ...], name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        animate(torch.zeros(shape), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_named(frames: torch.Tensor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"):
        animate(frames, tmp_path / "file" / "a.gif")
