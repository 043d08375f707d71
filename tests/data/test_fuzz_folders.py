"""Damaged image files and trees: a right sample or one line naming the file, nothing else."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spikeback.data import load
from spikeback.data.check import check
from spikeback.data.decode import decode_one
from spikeback.errors import UsageError

pytestmark = pytest.mark.slow


def encoded(kind: str) -> bytes:
    data, pixels = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, kind)
    return data.getvalue()


FILES = {kind: encoded(kind) for kind in ("png", "jpeg", "bmp", "webp")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*FILES]), st.integers(0, 400), st.binary(max_size=6), st.booleans())
def test_a_damaged_image_is_a_image_or_one_clear_error(
    folder: Path, kind: str, where: int, new: bytes, cut: bool
) -> None:
    content = FILES[kind]
    path = folder / f"image.{kind}"
    path.write_bytes(content[:where] + new + (b"" if cut else content[where + len(new) :]))
    message, image = "", None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on odd but readable files
        try:
            image = decode_one(path)
        except UsageError as error:
            message = str(error)
    if image is None:
        assert message.startswith(f"{path} cannot be read as an image")
        assert "\n" not in message
    else:
        assert image.dtype == torch.uint8
        assert image.ndim == 3


def test_a_image_of_absurd_size_is_an_error_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0))
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b""))
    with pytest.raises(UsageError, match=r"huge\.png cannot be read as an image: .*exceeds limit"):
        decode_one(path)


NAMES = st.sampled_from(
    ["train", "test", "val", "Train", "n01440764", "cat", "0", "1", "bird", "cifar-10-batches-py", ".x"]
)
LEAVES = st.sampled_from(["a.png", "b.JPEG", "00001.bin", "cifar10_cat_0.aedat", "0.npz", "data_batch_1", "notes.txt"])
TREES = st.lists(
    st.tuples(st.lists(NAMES, max_size=3), LEAVES, st.sampled_from([*FILES, "garbage", "folder"])), max_size=6
)


@settings(max_examples=100, deadline=None)
@given(TREES)
def test_any_tree_is_a_dataset_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, tree: list[tuple[list[str], str, str]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for folders, leaf, kind in tree:
        path = root.joinpath(*folders, leaf)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        if kind == "folder":
            path.mkdir()
        else:
            path.write_bytes(FILES.get(kind, b"#! no such thing"))
    messages = []
    for name in ("folder", "imagenet", "cifar10", "fashion-mnist", "cifar10-dvs", "nmnist", "dvs128-gesture"):
        try:
            dataset = load(name, root, 8, unchecked=True)
            assert len(dataset.train) * len(dataset.test) * len(dataset.classes)
        except UsageError as error:
            messages.append(str(error))
    try:
        finding = check(root)
        messages += [*finding.broken, *finding.missing]
    except UsageError as error:
        messages.append(str(error))
    assert not [message for message in messages if "\n" in message or str(root) not in message]
