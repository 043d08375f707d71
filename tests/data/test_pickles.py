"""Pickles of arrays: what NumPy writes is read, what is damaged or hostile is one clear error."""

import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeback.data.sets.pickles import read_pickle
from spikeback.errors import UsageError

from .cifar_files import dump

GOOD = {"labels": [0, 1], "data": np.zeros((2, 3072), np.uint8)}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batch") / "data_batch_1"
    dump(path, GOOD | {"filenames": ["a.png", "b.png"]})
    return path


@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_that_numpy_wrote_is_read(protocol: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3072), dtype=np.uint8)
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": pixels, "labels": [3, 4]}, protocol))
    read = read_pickle(tmp_path / "batch")
    assert np.array_equal(read["data"], pixels)
    assert (read["data"].dtype, read["labels"]) == (np.uint8, [3, 4])


@pytest.mark.parametrize("data", [np.zeros((2, 3072)), np.array([[{}]]), np.zeros((2, 9), np.uint8, order="F")])
def test_an_array_of_anything_but_bytes_is_refused(data: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": data}, 2))
    with pytest.raises(UsageError, match=r"batch cannot be read as a pickle of arrays \(an array of \w\d"):
        read_pickle(tmp_path / "batch")


def test_a_damaged_number_asks_for_no_memory(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")  # "remember this as number 4294967295"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_pickle(tmp_path / "batch") == {}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 17  # kilobytes


def test_damaged_flags_of_a_type_do_not_reach_numpy(batch: Path) -> None:
    content = batch.read_bytes()
    end = b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"  # of the type's state: two sizes, the flags
    assert content.count(end) == 1
    path = batch.with_name("flags")
    path.write_bytes(content.replace(end, end[:-3] + b"\x3ftb"))
    assert np.array_equal(read_pickle(path)["data"], read_pickle(batch)["data"])


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.tuples(st.integers(0, 6400), st.binary(max_size=8))))
def test_any_bytes_are_a_dictionary_or_one_clear_error(batch: Path, change: bytes | tuple[int, bytes]) -> None:
    content = batch.read_bytes()
    path = batch.with_name("damaged")
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:  # a real file with a few bytes overwritten
        where, new = change
        path.write_bytes(content[:where] + new + content[where + len(new) :])
    message = ""
    try:
        assert isinstance(read_pickle(path), dict)
    except UsageError as error:
        message = f"{error}"
    assert message == "" or message.startswith(f"{path} ")
    assert "\n" not in message
