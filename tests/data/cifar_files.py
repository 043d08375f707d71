"""Writes the CIFAR archives' files byte by byte, as Python 2 pickled them: protocol 2, text as byte strings."""

import struct
from pathlib import Path

import numpy as np

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def pickled(value: object) -> bytes:
    """The opcodes of a value, without header and stop."""
    if isinstance(value, bool):
        raise TypeError("not in these files")
    if isinstance(value, str):
        return b"T" + struct.pack("<i", len(value)) + value.encode("latin1")  # BINSTRING
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(pickled, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(pickled(part) for item in value.items() for part in item) + b"u"
    assert isinstance(value, np.ndarray)
    data = value.tobytes()
    kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(pickled(length) for length in value.shape) + b"t"
    content = b"T" + struct.pack("<i", len(data)) + data
    return ARRAY + b"(K\x01" + shape + kind + b"\x89" + content + b"tb"


def dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x80\x02" + pickled(value) + b".")


def write_cifar10(
    root: Path, per_batch: int = 20, test: int = 20
) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Five batches, the test batch and the names; returns training and test images (N, 3, 32, 32) and labels."""
    rng, folder = np.random.default_rng(0), root / "cifar-10-batches-py"
    images, labels = [], []
    for number, count in [*((i, per_batch) for i in range(1, 6)), (0, test)]:
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        label = [i % 10 for i in range(count)]
        name = f"data_batch_{number}" if number else "test_batch"
        names = [f"image_s_{i:06d}.png" for i in range(count)]
        batch = {"batch_label": name, "labels": label, "data": data, "filenames": names}
        dump(folder / name, batch)
        images.append(data.reshape(-1, 3, 32, 32))
        labels.append(label)
    dump(folder / "batches.meta", {"num_cases_per_batch": per_batch, "label_names": CIFAR10, "num_vis": 3072})
    return np.concatenate(images[:5]), images[5], [label for batch in labels[:5] for label in batch], labels[5]


def write_cifar100(
    root: Path, train: int = 200, test: int = 100
) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Both files and the names of 100 classes in 20 groups; returns images and fine labels as `write_cifar10`."""
    rng, folder = np.random.default_rng(1), root / "cifar-100-python"
    images, labels = [], []
    for name, count in (("train", train), ("test", test)):
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        fine = [i % 100 for i in range(count)]
        names = [f"image_s_{i:06d}.png" for i in range(count)]
        coarse = [label // 5 for label in fine]
        batch = {"filenames": names, "batch_label": name, "fine_labels": fine, "coarse_labels": coarse, "data": data}
        dump(folder / name, batch)
        images.append(data.reshape(-1, 3, 32, 32))
        labels.append(fine)
    fine_names = [f"class{i:02d}" for i in range(100)]
    dump(folder / "meta", {"fine_label_names": fine_names, "coarse_label_names": [f"group{i:02d}" for i in range(20)]})
    return images[0], images[1], labels[0], labels[1]
