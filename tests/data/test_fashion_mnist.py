import hashlib
import importlib.util
import struct
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from spikeback.data.sets import fashion_mnist
from spikeback.data.sets.embedded import load_embedded
from spikeback.data.sets.fashion_mnist import load_fashion_mnist, read_idx
from spikeback.errors import UsageError

WriteIdx = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_embedded.py"


def independent_idx(content: bytes) -> tuple[tuple[int, ...], list[int]]:
    """IDX read byte by byte, from the format's description alone."""
    zero, kind, dimensions = struct.unpack_from(">HBB", content)
    assert (zero, kind) == (0, 8)
    return struct.unpack_from(f">{dimensions}I", content, 4), list(content[4 + 4 * dimensions :])


def test_idx_equals_an_independent_reader(write_idx: WriteIdx, tmp_path: Path) -> None:
    write_idx()
    for path in sorted(tmp_path.iterdir()):
        shape, values = independent_idx(path.read_bytes())
        assert torch.equal(read_idx(path), torch.tensor(values, dtype=torch.uint8).reshape(shape))


@pytest.mark.parametrize("folder", [".", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_whole_set_is_read_from_either_place(
    write_idx: WriteIdx, tmp_path: Path, folder: str, packed: bool
) -> None:
    train_images, train_labels, test_images, test_labels = write_idx(folder, packed, published=True)
    loaded = load_fashion_mnist(tmp_path)
    assert loaded is not None
    assert torch.equal(loaded.train.images, torch.from_numpy(train_images)[:, None])
    assert torch.equal(loaded.train.labels, torch.from_numpy(train_labels).long())
    assert torch.equal(loaded.test.images, torch.from_numpy(test_images)[:, None])
    assert torch.equal(loaded.test.labels, torch.from_numpy(test_labels).long())
    assert (loaded.name, len(loaded.classes)) == ("Fashion-MNIST", 10)


def test_root_defaults_to_the_debian_package(
    write_idx: WriteIdx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path)
    assert load_fashion_mnist() is None
    write_idx(packed=True, published=True)
    loaded = load_fashion_mnist()
    assert loaded is not None
    assert len(loaded.train) == 40


def test_a_missing_file_is_an_error_that_names_all_four(write_idx: WriteIdx, tmp_path: Path) -> None:
    write_idx()
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UsageError, match=r"data\.root=.* train-images-idx3-ubyte, .* t10k-labels-idx1-ubyte, each"):
        load_fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"\x89PNG" + content[4:], "is not an IDX file of bytes"),
        (lambda content: b"", "is not an IDX file of bytes"),
        (lambda content: content[:-1], "holds 239 bytes of data, its header .* asks for 240"),
        (lambda content: content[:6], "is cut off within its header"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(
    write_idx: WriteIdx, tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    write_idx()
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=f"{path.name} {message}"):
        load_fashion_mnist(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60])
def test_a_truncated_archive_is_an_error_that_names_it(write_idx: WriteIdx, tmp_path: Path, keep: int) -> None:
    write_idx(packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match=path.name):
        load_fashion_mnist(tmp_path)


def test_a_corrupt_archive_is_an_error_that_names_it(write_idx: WriteIdx, tmp_path: Path) -> None:
    write_idx(packed=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:20] + b"\xff" * 40)
    with pytest.raises(UsageError, match=f"{path.name} cannot be read"):
        load_fashion_mnist(tmp_path)


def test_as_many_labels_as_images(write_idx: WriteIdx, tmp_path: Path) -> None:
    write_idx()
    (tmp_path / "train-labels-idx1-ubyte").write_bytes((tmp_path / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(UsageError, match=r"N labels, not \(40, 2, 3\) and \(20,\)"):
        load_fashion_mnist(tmp_path, unchecked=True)


def test_other_images_are_refused_and_unchecked_never_called_fashion_mnist(write_idx: WriteIdx, tmp_path: Path) -> None:
    arrays = write_idx("digits")
    with pytest.raises(
        UsageError, match=r"images-idx3-ubyte, 40 x 2 x 3, is not Fashion-MNIST's: .*data\.unchecked=True"
    ):
        load_fashion_mnist(tmp_path / "digits")
    loaded = load_fashion_mnist(tmp_path / "digits", unchecked=True)
    assert loaded is not None
    assert loaded.name == "IDX images in digits, unchecked"
    assert loaded.classes == tuple("0123456789")
    assert "Fashion" not in loaded.name + loaded.provenance
    assert torch.equal(loaded.test.images, torch.from_numpy(arrays[2])[:, None])


def test_one_changed_byte_is_refused(write_idx: WriteIdx, tmp_path: Path) -> None:
    write_idx(published=True)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(UsageError, match="t10k-labels-idx1-ubyte, 20, is not Fashion-MNIST's"):
        load_fashion_mnist(tmp_path)
    loaded = load_fashion_mnist(tmp_path, unchecked=True)
    assert loaded is not None
    assert len(loaded.classes) == 12


def test_unchecked_halves_have_images_of_one_size(write_idx: WriteIdx, tmp_path: Path) -> None:
    write_idx()
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(struct.pack(">4B3i", 0, 0, 8, 3, 20, 3, 2) + path.read_bytes()[16:])
    with pytest.raises(UsageError, match=r"differ in the size of their images: \(1, 2, 3\), \(1, 3, 2\)"):
        load_fashion_mnist(tmp_path, unchecked=True)


def test_embedded_file_is_the_one_the_script_printed() -> None:
    content = (files("spikeback.data") / "embedded" / "fashion-mnist.npz").read_bytes()
    assert len(content) < 4_000_000
    digest = hashlib.sha256(content).hexdigest()
    assert digest == "b3a5ef00123a6fcb94b9de321db87656eb8fb8f8a3ae1a4a4b2175975aec0fce"
    assert digest in (files("spikeback.data") / "embedded" / "README.md").read_text()


def test_embedded_licence_lies_beside_the_images() -> None:
    licence = (files("spikeback.data") / "embedded" / "LICENSE-fashion-mnist").read_text()
    assert "Copyright (c) 2017 Zalando SE, https://tech.zalando.com" in licence


def test_embedded_subset_is_balanced() -> None:
    embedded = load_embedded()
    assert embedded.name == "Fashion-MNIST, embedded subset"
    assert embedded.train.images.shape == (6000, 1, 28, 28)
    assert embedded.test.images.shape == (1000, 1, 28, 28)
    assert embedded.train.images.dtype == torch.uint8
    assert embedded.train.labels.dtype == torch.int64
    assert embedded.train.labels.bincount().tolist() == [600] * 10
    assert embedded.test.labels.bincount().tolist() == [100] * 10
    assert len(embedded.classes) == 10


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_embedded", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TARGET", tmp_path / "made.npz")
    monkeypatch.setattr("sys.argv", ["make_embedded.py", str(tmp_path)])
    return module


def test_script_takes_the_first_of_each_class_in_order(script: ModuleType) -> None:
    labels = torch.tensor([1, 0, 1, 1, 0, 0])
    images, chosen = script.first_of_each_class(torch.arange(6), labels, 2)
    assert images.tolist() == [0, 1, 2, 4]
    assert chosen.tolist() == [1, 0, 1, 0]


def test_script_writes_equal_bytes_each_time(
    script: ModuleType, write_idx: WriteIdx, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = write_idx(packed=True, published=True)
    script.main()
    first = script.TARGET.read_bytes()
    script.main()
    assert script.TARGET.read_bytes() == first
    assert capsys.readouterr().out.startswith(hashlib.sha256(first).hexdigest())
    with np.load(script.TARGET) as made:
        for made_array, original in zip(made.values(), arrays, strict=True):
            assert np.array_equal(made_array, original)


def test_script_refuses_other_files(script: ModuleType, write_idx: WriteIdx) -> None:
    with pytest.raises(SystemExit, match="lacks one of"):
        script.main()
    write_idx()
    with pytest.raises(SystemExit, match="its sha256, unpacked, should be"):
        script.main()
    assert not script.TARGET.exists()
