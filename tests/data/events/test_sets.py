import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spikeback.data.events.decode import FrameOptions, decode_files
from spikeback.data.events.dtype import EVENT
from spikeback.data.events.frame_set import Frames, FrameSet
from spikeback.data.events.frames import to_frames
from spikeback.data.events.read import read_events
from spikeback.data.sets import nmnist as sets
from spikeback.data.sets.nmnist import nmnist
from spikeback.errors import UsageError

CONTENT = np.arange(5 * 2 * 2 * 3 * 4, dtype=np.uint8).reshape(5, 2, 2, 3, 4)


def test_rows_choose_and_order_the_samples() -> None:
    frames = Frames(CONTENT, torch.tensor([7, 8, 9]), torch.tensor([4, 0, 2]))
    assert len(frames) == 3
    assert frames.shape == (2, 2, 3, 4)
    assert np.array_equal(frames.read(torch.tensor([2, 0, 0])).numpy(), CONTENT[[2, 4, 4]])
    assert np.array_equal(Frames(CONTENT, torch.zeros(5)).read(torch.tensor([3])).numpy(), CONTENT[[3]])


def test_what_is_read_may_be_written_to(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", CONTENT)
    frames = Frames(np.load(tmp_path / "f.npy", mmap_mode="r"), torch.zeros(5))
    for indices in (torch.tensor([1]), torch.arange(5)):
        frames.read(indices).zero_()
    assert np.array_equal(frames.read(torch.arange(5)).numpy(), CONTENT)


def test_a_worker_process_is_handed_the_file_not_its_content(tmp_path: Path) -> None:
    big = np.zeros((1000, 2, 2, 9, 9), np.uint8)
    big[3] = 5
    np.save(tmp_path / "f.npy", big)
    frames = Frames(np.load(tmp_path / "f.npy", mmap_mode="r"), torch.arange(2), torch.tensor([3, 4]))
    message = pickle.dumps(frames)
    assert len(message) < 2000
    again = pickle.loads(message)
    assert isinstance(again.frames, np.memmap)
    for one in (again, pickle.loads(pickle.dumps(Frames(big, torch.arange(2), torch.tensor([3, 4]))))):
        assert torch.equal(one.read(torch.arange(2)), frames.read(torch.arange(2)))
        assert torch.equal(one.labels, frames.labels)


def test_a_part_of_a_file_stays_that_part(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", CONTENT)
    frames = Frames(np.load(tmp_path / "f.npy", mmap_mode="r")[3:], torch.arange(2))
    assert np.array_equal(pickle.loads(pickle.dumps(frames)).read(torch.arange(2)).numpy(), CONTENT[3:])


def frame_set(labels: torch.Tensor, rows: torch.Tensor | None = None, frames: np.ndarray = CONTENT) -> FrameSet:
    return FrameSet(
        "tiny", "made up", ("a", "b"), Frames(frames, labels, rows), Frames(frames[:1], torch.zeros(1).long())
    )


def test_the_hash_is_of_what_is_read_not_of_how_it_is_kept() -> None:
    plain = frame_set(torch.tensor([0, 1]), frames=CONTENT[:2])
    assert frame_set(torch.tensor([0, 1]), torch.tensor([0, 1])).hash() == plain.hash()
    halves = [((2, 2, 2, 3, 4), CONTENT[:2], [0, 1]), ((1, 2, 2, 3, 4), CONTENT[:1], [0])]
    content = b"".join(
        repr(shape).encode()
        + b"".join(hashlib.sha256(sample.tobytes()).digest() for sample in part)
        + struct.pack(f"<{len(y)}q", *y)
        for shape, part, y in halves
    )
    assert plain.hash() == hashlib.sha256(b"('a', 'b')" + content).hexdigest()


def test_order_labels_and_classes_are_in_the_hash() -> None:
    labels = torch.tensor([0, 1])
    hashes = {
        frame_set(labels, torch.tensor([0, 1])).hash(),
        frame_set(labels, torch.tensor([1, 0])).hash(),
        frame_set(labels.flip(0), torch.tensor([0, 1])).hash(),
        frame_set(labels[:1], torch.tensor([0])).hash(),
    }
    assert len(hashes) == 4


def test_a_sample_that_was_not_made_cannot_be_read() -> None:
    sums = np.ones((5, 32), np.uint8)
    sums[3] = 0
    split = Frames(CONTENT, torch.arange(5), None, sums).part(torch.tensor([0, 3, 4]))
    assert len(split.read(torch.tensor([2, 0]))) == 2
    for one in (split, pickle.loads(pickle.dumps(split))):
        with pytest.raises(UsageError, match="sample 1 was left out"):
            one.read(torch.tensor([2, 1]))


def some_events(n: int, sensor: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT)
    events["t"], events["p"] = np.sort(rng.integers(0, 1000, n)), rng.integers(0, 2, n)
    events["y"], events["x"] = rng.integers(0, sensor[0], n), rng.integers(0, sensor[1], n)
    return events


def test_counts_saturate_at_255() -> None:
    events = np.repeat(some_events(1, (2, 2)), 300)
    sample = FrameOptions(time_steps=1).sample(events, (2, 2))
    assert sample.dtype == np.uint8
    assert sorted(sample.flatten().tolist()) == [0] * 7 + [255]


@pytest.mark.parametrize("workers", [1, 2])
def test_building_says_how_many_counts_may_be_cut_off(tmp_path: Path, workers: int) -> None:
    counts = [300, 2, 255] + [1] * 70
    files = []
    for i, count in enumerate(counts):
        nothing, one = np.zeros(count, int), np.ones(count, int)
        files.append(tmp_path / f"{i}.npz")
        np.savez(files[-1], t=np.arange(count), x=nothing, y=nothing, p=one)
    options = FrameOptions(time_steps=1, workers=workers)
    with pytest.warns(UserWarning, match=r"^crowd: 2 counts of a pixel in a frame reach 255, the largest that is kept"):
        split = decode_files("crowd", tmp_path, files, torch.zeros(len(files)), (2, 2), options)
    assert split.frames[:3, 0, 1, 0, 0].tolist() == [255, 2, 255]
    decode_files("crowd", tmp_path, files, torch.zeros(len(files)), (2, 2), options)  # from the cache: said once


@pytest.mark.parametrize("size", [None, 5, (3, 7), (6, 9)])
@pytest.mark.parametrize("resize", ["nearest", "bilinear", "area"])
def test_whole_counts_are_bytes_and_fractions_are_kept(size: int | tuple[int, int] | None, resize: str) -> None:
    sensor, options = (6, 9), FrameOptions(time_steps=3, size=size, resize=resize)  # type: ignore[arg-type]
    events = some_events(200, sensor)
    sample = options.sample(events, sensor)
    exact = to_frames(events, 3, sensor, size, resize=resize).numpy()  # type: ignore[arg-type]
    whole = resize == "nearest" or size in (None, sensor)
    assert sample.dtype.name == options.dtype(sensor) == ("uint8" if whole else "float16")
    assert sample.shape == options.shape(sensor) == exact.shape
    assert np.array_equal(sample, exact.astype(sample.dtype))
    assert not whole or np.array_equal(sample, exact)


@settings(max_examples=100, deadline=None)
@given(frames=arrays(np.uint8, st.tuples(st.integers(1, 6), *[st.integers(1, 3)] * 4)), data=st.data())
def test_any_selection_is_numpys_selection(frames: np.ndarray, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(frames) - 1), min_size=1, max_size=9))
    asked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9))
    split = Frames(frames, torch.arange(len(rows)), torch.tensor(rows))
    read = split.read(torch.tensor(asked, dtype=torch.int64))
    assert np.array_equal(read.numpy(), frames[np.array(rows)[np.array(asked, dtype=int)]])


def write_bin(path: Path, events: list[tuple[int, int, int, int]]) -> None:
    """An N-MNIST file of (t, x, y, p): five bytes each."""
    path.write_bytes(b"".join(bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for t, x, y, p in events))


@pytest.fixture
def write_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """20 + 10 recordings; number n of class (7 n) % 10 has ON events at x = n, y = the class, so in both frames."""

    def write() -> Path:
        monkeypatch.setattr(sets, "NMNIST", {"Train": 20, "Test": 10})
        for half, count in sets.NMNIST.items():
            for n in range(1, count + 1):
                folder = tmp_path / half / str(7 * n % 10)
                folder.mkdir(parents=True, exist_ok=True)
                write_bin(folder / f"{n:05d}.bin", [(t, n, 7 * n % 10, 1) for t in (5, 100000)])
        return tmp_path

    return write


def test_nmnist_is_read_from_its_own_layout(write_digits: Callable[[], Path]) -> None:
    loaded = nmnist(write_digits(), FrameOptions(time_steps=2))
    assert (loaded.name, loaded.split, loaded.sensor) == ("N-MNIST", "official", (34, 34))
    assert loaded.classes == tuple("0123456789")
    for part, count in ((loaded.train, 20), (loaded.test, 10)):
        assert len(part) == count
        assert part.shape == (2, 2, 34, 34)
        at = part.read(torch.arange(count)).nonzero()  # (n, t, p, y, x), one for each time step
        assert torch.equal(at[:, 3], part.labels.repeat_interleave(2))
        assert torch.equal(7 * at[:, 4] % 10, at[:, 3])
        assert sorted(at[::2, 4].tolist()) == list(range(1, count + 1))
        assert at[:, 1].tolist() == [0, 1] * count
    assert part.labels.tolist() == list(range(10))


def drop_half(root: Path) -> str:
    (root / "Test").rename(root / "test")
    return r"data\.root=.* lacks the folder Test; expected Train/<digit>/ and Test/<digit>/"


def drop_digit(root: Path) -> str:
    (root / "Train" / "4").rename(root / "four")
    return r"Train lacks the class folder 4; expected 0, 1, .*, 9"


def drop_recording(root: Path) -> str:
    (root / "Train" / "4" / "00002.bin").unlink()
    return r"Train lacks 1 of 20 recordings, the first is 00002\.bin"


def add_recording(root: Path) -> str:
    (root / "Train" / "4" / "00021.bin").touch()
    return r"Train holds 21 recordings, expected 20; .*4/00021\.bin is one too many"


def add_other(root: Path) -> str:
    (root / "Train" / "4" / "notes.txt").touch()
    return r"notes\.txt is no recording; expected only \.bin files in .*Train/4"


def empty_digit(root: Path) -> str:
    for path in (root / "Test" / "4").iterdir():
        path.unlink()
    return r"Test/4 holds no recordings; expected \.bin files"


def truncate(root: Path) -> str:
    (root / "Train" / "4" / "00002.bin").write_bytes(bytes(7))
    return r"4/00002\.bin: .* byte 5"


@pytest.mark.parametrize(
    "spoil", [drop_half, drop_digit, drop_recording, add_recording, add_other, empty_digit, truncate]
)
def test_each_mistake_in_nmnist_is_named(write_digits: Callable[[], Path], spoil: Callable[[Path], str]) -> None:
    root = write_digits()
    with pytest.raises(UsageError, match=spoil(root)) as error:
        nmnist(root)
    assert "\n" not in str(error.value)


def test_a_real_recording_is_cached_as_it_is_decoded(
    real_data: Path, write_digits: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_digits()
    real = real_data / "events" / "sample_nmnist.bin"
    (root / "Train" / "0" / "00010.bin").write_bytes(real.read_bytes())
    loaded = nmnist(root)
    expected = to_frames(read_events(real), 10, (34, 34))
    assert torch.equal(loaded.train.read(torch.tensor([0]))[0].float(), expected)
    assert expected.sum() == 4325
