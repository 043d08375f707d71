"""A simulated recording: what the camera sees, the physics of what it reports, and determinism."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from spikeback.data.events.dtype import EVENT
from spikeback.data.events.pixel import PRESETS, UNIT, PixelModel, comparator_levels
from spikeback.data.events.simulate import MotionPath, moving_luminance, simulate
from spikeback.data.sets.embedded import load_embedded
from spikeback.errors import UsageError

IDEAL = PixelModel(mismatch=0.0)
STILL = MotionPath(amplitude=0.0)


@pytest.fixture(scope="module")
def shoe() -> Tensor:
    return load_embedded().train.images[0]  # (1, 28, 28)


@pytest.fixture
def colours() -> Tensor:
    return torch.randint(0, 256, (3, 12, 9), dtype=torch.uint8)


def totals(events: np.ndarray, sensor: int) -> np.ndarray:
    """Events of every pixel, OFF and ON: (2, P)."""
    place = (events["p"].astype(int) * sensor + events["y"]) * sensor + events["x"]
    return np.bincount(place, minlength=2 * sensor**2).reshape(2, -1)


def upscaled(image: Tensor, height: int, width: int) -> Tensor:
    """PyTorch's bicubic enlargement, (H, W), of a grey image."""
    return F.interpolate(image[None].float(), (height, width), mode="bicubic").clamp(0, 255)[0, 0]


def test_a_image_at_rest_is_seen_as_pytorch_enlarges_it(shoe: Tensor) -> None:
    expected = upscaled(shoe, 100, 100).numpy()
    for seen in moving_luminance(shoe, STILL, 100):
        assert np.abs(seen.reshape(100, 100) - expected).max() < 1e-3


def test_the_path_shifts_the_view_over_the_enlarged_image(shoe: Tensor) -> None:
    """A circle of 8 pixels' radius before 64 pixels: after 0, 1/4, 2/4, 3/4, 4/4 of it the shift is a whole number."""
    path = MotionPath(amplitude=8 / 64, steps=4)
    canvas = upscaled(shoe, 80, 80).numpy()
    for seen, (down, right) in zip(
        moving_luminance(shoe, path, 64), [(0, 8), (8, 0), (0, -8), (-8, 0), (0, 8)], strict=True
    ):
        view = canvas[8 - down :, 8 - right :][:64, :64]  # the image moves right: the view moves left
        assert np.abs(seen.reshape(64, 64) - view).max() < 1e-3


def test_the_shorter_side_covers_the_view_and_the_longer_is_centred() -> None:
    image = torch.randint(0, 256, (1, 10, 20), dtype=torch.uint8)
    seen = next(moving_luminance(image, STILL, 40)).reshape(40, 40)
    assert np.abs(seen - upscaled(image, 40, 80)[:, 20:60].numpy()).max() < 1e-3


def test_colours_become_luminance(colours: Tensor) -> None:
    red, green, blue = colours.double()
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    seen = next(moving_luminance(colours[:, :9], STILL, 9)).reshape(9, 9)
    assert np.abs(seen - grey[:9].numpy()).max() < 1e-3


def test_a_image_larger_than_the_view_is_scaled_down_without_aliasing() -> None:
    stripes = (torch.arange(448) % 2 * 255).to(torch.uint8).expand(1, 448, 448)
    seen = next(moving_luminance(stripes, STILL, 64))
    assert np.abs(seen - 127.5).max() < 6


def test_every_event_of_a_image_is_the_slow_loops(shoe: Tensor) -> None:
    sensor, path = 32, MotionPath()
    times = path.times()
    both = IDEAL.draw_thresholds(sensor**2, np.random.default_rng(0))
    theta = int(both[0, 0])
    events = simulate(shoe, IDEAL, path, sensor=sensor)
    levels = np.stack(list(comparator_levels(moving_luminance(shoe, path, sensor), both[0], times, IDEAL)))
    expected = []
    for pixel, column in enumerate(levels.T):
        level, memory = [int(v) for v in column], int(column[0])
        for k, (start, end) in enumerate(pairwise(level)):
            while abs(end - memory) >= theta:
                memory += theta if end > memory else -theta
                moment = times[k] + (memory - start) / (end - start) * (times[k + 1] - times[k])
                expected.append((pixel, moment, end > start))
    assert len(events) == len(expected) > 10_000
    pixel, moment, rises = np.array(expected).T
    mine = np.lexsort((events["t"], events["y"] * sensor + events["x"]))
    slow = np.lexsort((moment, pixel))
    assert np.array_equal((events["y"] * sensor + events["x"])[mine], pixel[slow])
    assert np.array_equal(events["p"][mine], rises[slow])
    assert np.abs(events["t"][mine] + 0.5 - moment[slow]).max() < 0.51  # whole microseconds, rounded down


def test_events_are_ordered_and_lie_on_the_sensor_within_the_recording(shoe: Tensor) -> None:
    events = simulate(shoe, "noisy", sensor=48)
    assert events.dtype == EVENT
    assert (np.diff(events["t"]) >= 0).all()
    assert 0 <= events["t"][0] < events["t"][-1] <= 1_280_000
    assert {*events["x"].tolist()} == {*events["y"].tolist()} == set(range(48))
    assert {*events["p"].tolist()} == {0, 1}


@pytest.mark.parametrize("preset", ["clean", IDEAL])
def test_what_does_not_change_is_not_reported(shoe: Tensor, preset: str | PixelModel) -> None:
    assert len(simulate(shoe, preset, STILL)) == 0
    assert len(simulate(torch.full((3, 5, 5), 200, dtype=torch.uint8), preset)) == 0


def test_events_rise_and_fall_evenly_on_a_closed_path(shoe: Tensor) -> None:
    off, on = totals(simulate(shoe, IDEAL, sensor=64), 64)
    assert on.max() > 20
    assert np.array_equal(on, off)  # the level is back, so what a pixel remembers is less than one threshold from it
    assert abs(simulate(shoe, sensor=64)["p"].mean() - 0.5) < 0.01  # mismatched: nearly


@pytest.mark.parametrize("theta", [0.1, 0.2])
def test_twice_the_threshold_fires_half_the_events(shoe: Tensor, theta: float) -> None:
    once, twice = (totals(simulate(shoe, PixelModel(t, 0.0), sensor=64), 64) for t in (theta, 2 * theta))
    assert (once >= 2 * twice).all()  # what is left over below a threshold is lost
    assert 2 <= once.sum() / twice.sum() < 2.2


def test_reversed_contrast_swaps_the_polarities(shoe: Tensor) -> None:
    """In whichever 10 ms a pixel reports both an image and its negative, it reports them with opposite signs."""

    def signs(image: Tensor) -> np.ndarray:
        events = simulate(image, IDEAL, sensor=32)
        change = np.zeros((129, 32, 32))
        np.add.at(change, (events["t"] // 10_000, events["y"], events["x"]), 2.0 * events["p"] - 1)
        return np.sign(change)

    product = signs(shoe) * signs(255 - shoe)
    assert (product < 0).sum() > 3000
    assert not (product > 0).any()


def test_brightness_does_not_matter_above_the_knee_only_contrast_does() -> None:
    image = torch.tensor([[[40, 100], [60, 80]]], dtype=torch.uint8)
    dim, bright = (totals(simulate(p, PixelModel(0.05, 0.0), sensor=32), 32) for p in (image, 2 * image))
    assert dim.sum() > 1000
    assert np.abs(dim - bright).sum() <= 2  # of two levels rounded to UNIT


def test_equal_arguments_give_equal_events_whatever_the_threads(shoe: Tensor) -> None:
    before, torch_before = np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]  # noqa: NPY002
    first = simulate(shoe, "noisy", seed=3, recording=5, sensor=64)
    torch.set_num_threads(2)
    second = simulate(shoe, "noisy", seed=3, recording=5, sensor=64)
    torch.set_num_threads(1)
    assert np.array_equal(first, second)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_the_seed_is_the_camera_and_the_recording_its_noise(shoe: Tensor) -> None:
    def clean(seed: int, recording: int) -> np.ndarray:
        return simulate(shoe, "clean", seed=seed, sensor=16, recording=recording)

    assert np.array_equal(clean(0, 0), clean(0, 1))
    assert not np.array_equal(totals(clean(0, 0), 16), totals(clean(1, 0), 16))
    noisy = [simulate(shoe, "noisy", seed=s, sensor=16, recording=r) for s, r in ((0, 0), (0, 1), (1, 0))]
    assert len({one.tobytes() for one in noisy}) == 3


def test_noise_fires_at_its_rate_before_a_still_image(shoe: Tensor) -> None:
    events, mean = simulate(shoe, "noisy", STILL, sensor=64), 64**2 * 128 * -math.expm1(-0.05)
    assert 0.9 * mean < len(events) < mean  # a pixel is blind for 10 ms, and less than a step more, after each event


def test_a_path_ends_where_it_began() -> None:
    for path in (MotionPath(), MotionPath(lobes=2, loops=3, steps=100)):
        shifts, times = path.shifts(), path.times()
        assert np.array_equal(shifts[0], shifts[-1])
        assert len(shifts) == len(times) == path.steps + 1
        assert np.abs(shifts).max() <= path.amplitude
        assert times[0] == 0
        assert times[-1] == 1_280_000
    assert np.allclose(np.hypot(*MotionPath().shifts().T), 1 / 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "foggy"}, "no preset 'foggy' .* choose from clean, noisy"),
        ({"sensor": 0}, "sensor must be 1 to 1024 pixels wide, not 0"),
        ({"sensor": 1025}, "not 1025"),
        ({"seed": -1}, "seed and recording must be at least 0, not -1"),
        ({"recording": -1}, "seed and recording must be at least 0"),
        ({"image": torch.zeros(1, 4, 4)}, r"must be uint8 .* not torch.float32 \(1, 4, 4\)"),
        ({"image": torch.zeros(2, 4, 4, dtype=torch.uint8)}, r"not torch.uint8 \(2, 4, 4\)"),
        ({"image": torch.zeros(4, 4, dtype=torch.uint8)}, r"not torch.uint8 \(4, 4\)"),
        ({"image": torch.zeros(1, 0, 4, dtype=torch.uint8)}, r"not torch.uint8 \(1, 0, 4\)"),
    ],
)
def test_what_cannot_be_simulated_is_named(arguments: dict[str, object], message: str) -> None:
    image = arguments.pop("image", torch.zeros(1, 4, 4, dtype=torch.uint8))
    with pytest.raises(UsageError, match=message):
        simulate(image, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["duration", "amplitude", "loops", "lobes", "steps"])
@pytest.mark.parametrize("value", [-1, math.nan, 1e9, "many", True])
def test_a_path_that_cannot_be_is_named(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"MotionPath {option} must be"):
        MotionPath(**{option: value})  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([1, 3]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 8),
    st.builds(PixelModel, st.floats(0.01, 5), st.floats(0, 2), *[st.floats(0, 1e4)] * 3, st.floats(0, 1)),
    st.builds(MotionPath, st.floats(0.001, 2), st.floats(0, 1), *[st.integers(1, 9)] * 3),
)
def test_any_model_and_path_give_events_of_the_sensor_in_order(
    channels: int, height: int, width: int, sensor: int, model: PixelModel, path: MotionPath
) -> None:
    rng = torch.Generator().manual_seed(height * width)
    image = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=rng)
    events = simulate(image, model, path, sensor=sensor)
    assert (np.diff(events["t"]) >= 0).all()
    if len(events):
        assert 0 <= events["t"][0] <= events["t"][-1] <= path.times()[-1]
        assert max(events["x"].max(), events["y"].max()) < sensor
        assert min(events["x"].min(), events["y"].min()) >= 0
        assert events["p"].max() <= 1


def test_a_level_is_exact_in_float32() -> None:
    assert math.log(255) / UNIT < 2**23
    assert all(model.threshold / UNIT < 2**23 for model in PRESETS.values())
