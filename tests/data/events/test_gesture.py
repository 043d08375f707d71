import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeback.data.events.decode import FrameOptions
from spikeback.data.sets.dvs128_gesture import CLASSES, dvs128_gesture
from spikeback.errors import UsageError

OPTIONS = FrameOptions(time_steps=2)
USERS = {"train": ("user01_led", "user02_lab"), "test": ("user24_led",)}


def write_recording(path: Path, x: int) -> None:
    """Events at pixel (x, time / 10), ON, at 0, 10, ..., 990 microseconds."""
    head = struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, 100, 100, 100)
    events = [struct.pack("<II", x << 17 | i << 2 | 3, 10 * i) for i in range(100)]
    path.write_bytes(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + head + b"".join(events))


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """Three recordings with three gestures each: classes 1, 11 and 1 again, of 20, 40 and 30 events."""
    for half, users in USERS.items():
        (tmp_path / f"trials_to_{half}.txt").write_text("".join(f"{user}.aedat\r\n" for user in users))
        for user in users:
            write_recording(tmp_path / f"{user}.aedat", int(user[4:6]))
            table = "class,startTime_usec,endTime_usec\n1,0,200\n11,200,600\n1,550,850\n"
            (tmp_path / f"{user}_labels.csv").write_text(table)
    return tmp_path


def test_each_gesture_is_a_sample_with_its_label(original: Path) -> None:
    loaded = dvs128_gesture(original, OPTIONS)
    assert loaded.classes == CLASSES
    assert (loaded.split, loaded.sensor, loaded.mirror) == ("official", (128, 128), None)  # left is not right
    assert loaded.train.labels.tolist() == [0, 10, 0, 0, 10, 0]
    assert loaded.test.labels.tolist() == [0, 10, 0]
    expected = np.zeros((3, 2, 2, 128), np.uint8)  # sample, time step, polarity, y
    for sample, (start, end) in enumerate([(0, 20), (20, 60), (55, 85)]):
        middle = (start + end) // 2
        expected[sample, 0, 1, start:middle] = 1
        expected[sample, 1, 1, middle:end] = 1
    for part, xs in ((loaded.train, [1, 2]), (loaded.test, [24])):
        frames = part.read(torch.arange(len(part))).numpy()
        assert frames.sum() == len(xs) * 90
        for i, x in enumerate(xs):
            assert np.array_equal(frames[3 * i : 3 * i + 3, ..., x], expected)


def test_one_file_a_gesture_is_read_as_well(tmp_path: Path) -> None:
    for half, count in (("train", 2), ("test", 1)):
        for label in range(11):
            (tmp_path / half / str(label)).mkdir(parents=True)
            for i in range(count):
                t, x, y, p = np.array([[1, 2], [label, label], [i, i], [1, 0]])
                np.savez(tmp_path / half / str(label) / f"user_{i}.npz", t=t, x=x, y=y, p=p)
    loaded = dvs128_gesture(tmp_path, OPTIONS)
    assert loaded.train.labels.tolist() == [label for label in range(11) for _ in range(2)]
    at = loaded.train.read(torch.arange(22)).nonzero()  # (n, t, p, y, x)
    assert at[:, 4].tolist() == [label for label in range(11) for _ in range(4)]
    assert at[:, 2].tolist() == [1, 0] * 22
    (tmp_path / "train" / "10" / "user_0.npz").unlink()
    (tmp_path / "train" / "10" / "user_1.npz").unlink()
    with pytest.raises(UsageError, match=r"train/10 holds no recordings; expected \.npz files"):
        dvs128_gesture(tmp_path, OPTIONS)


def test_a_changed_table_is_another_cache_entry(original: Path) -> None:
    before = dvs128_gesture(original, OPTIONS)
    table = original / "user24_led_labels.csv"
    table.write_text(table.read_text().replace("550,850", "560,860"))
    assert dvs128_gesture(original, OPTIONS).hash() != before.hash()


def test_a_gesture_without_events_is_warned_of(original: Path) -> None:
    table = original / "user24_led_labels.csv"
    table.write_text(table.read_text() + "3,5000,6000\n")
    with pytest.warns(UserWarning, match=r"user24_led\.aedat has no events from 5000 to 6000 us; its frames are empty"):
        loaded = dvs128_gesture(original, OPTIONS)
    assert loaded.test.read(torch.tensor([3])).sum() == 0


def drop_recording(root: Path) -> str:
    (root / "user02_lab.aedat").unlink()
    return r"lacks 1 files that trials_to_train\.txt lists, the first is user02_lab\.aedat"


def drop_tables(root: Path) -> str:
    for user in USERS["train"]:
        (root / f"{user}_labels.csv").unlink()
    return r"lacks 2 files that trials_to_train\.txt lists, the first is user01_led_labels\.csv"


def drop_list(root: Path) -> str:
    (root / "trials_to_test.txt").unlink()
    return r"trials_to_test\.txt cannot be read: No such file"


def drop_all(root: Path) -> str:
    (root / "trials_to_train.txt").unlink()
    return r"is not DVS128 Gesture; expected trials_to_train\.txt .* or train/<0\.\.10>/"


def wrong_class(root: Path) -> str:
    (root / "user24_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,0,5\n12,5,9\n")
    return r"user24_led_labels\.csv line 3 is 12,5,9; expected class \(1 to 11\),start,end"


def wrong_words(root: Path) -> str:
    (root / "user24_led_labels.csv").write_text("class,startTime_usec,endTime_usec\nwave,0\n")
    return r"user24_led_labels\.csv line 2 is wave,0; expected"


def no_rows(root: Path) -> str:
    (root / "user24_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n")
    return r"user24_led_labels\.csv names no gestures"


def no_text(root: Path) -> str:
    (root / "user24_led_labels.csv").write_bytes(b"\xff\xfe\0")
    return r"user24_led_labels\.csv cannot be read: 'ascii' codec"


def no_trials(root: Path) -> str:
    (root / "trials_to_train.txt").write_text("\n")
    return r"trials_to_train\.txt lists no recordings"


def truncate(root: Path) -> str:
    path = root / "user02_lab.aedat"
    path.write_bytes(path.read_bytes()[:-1])
    return r"user02_lab\.aedat: .* byte 28 "


@pytest.mark.parametrize(
    "spoil",
    [
        drop_recording,
        drop_tables,
        drop_list,
        drop_all,
        wrong_class,
        wrong_words,
        no_rows,
        no_text,
        no_trials,
        truncate,
    ],
)
def test_each_mistake_is_named(original: Path, spoil: Callable[[Path], str]) -> None:
    with pytest.raises(UsageError, match=spoil(original)) as error:
        dvs128_gesture(original, OPTIONS)
    assert "\n" not in str(error.value)
