"""Events as arrays, whatever their types and names: from .npz and .npy files, from tonic, or given by hand."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spikeback.data.events.clock import unwrapped
from spikeback.data.events.dtype import EVENT, FAR, Recording
from spikeback.errors import UsageError

NAMES = {
    "t": ("t", "ts", "time", "timestamp", "timestamps"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "pol", "polarity"),
}  # what each column may be called, in capitals too


def read_arrays(path: Path) -> Recording:
    """A .npz with an array a column or with one structured array, or a .npy that is one. See `from_columns`."""
    try:
        with path.open("rb") as file:
            found = np.load(file)
            if not isinstance(found, np.ndarray):
                found = {name: found[name] for name in found.files}
        columns = pick(next(iter(found.values())) if isinstance(found, dict) and len(found) == 1 else found)
    except Exception as error:  # a broken archive raises whatever its decoder meets first
        why = error if isinstance(error, LookupError | UsageError) else "it is damaged, or of another kind"
        raise UsageError(f"{path} cannot be read as {path.suffix} with arrays t, x, y, p: {why}") from None
    pixel = lambda i: (int(columns["x"][i]), int(columns["y"][i]))
    return Recording(from_columns(str(path), columns), None, lambda i: f"number {i}", pixel=pixel)


def pick(events: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns t, x, y, p of a structured array, or of arrays by name, whatever NAMES they have.

    Raises LookupError where there is none or several for one of them, or the array is not structured.
    """
    if isinstance(events, np.ndarray):
        if not events.dtype.names:
            raise LookupError(
                f"an array {events.dtype} of shape {events.shape} does not say which column is which; of x, y, t, p "
                "make np.array([tuple(row) for row in a], [('x', 'i2'), ('y', 'i2'), ('t', 'i8'), ('p', 'i1')])"
            )
        events = {name: events[name] for name in events.dtype.names}
    chosen = {}
    for name, known in NAMES.items():
        found = [given for given in events if given.lower() in known]
        if len(found) != 1:
            which = f"{' and '.join(found)} are both {name}" if found else f"no {' or '.join(known)}"
            raise LookupError(f"{which} among {', '.join(events)}")
        chosen[name] = events[found[0]]
    return chosen


def from_columns(source: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """The `columns` t, x, y, p, of equal length and of whole numbers, as events, EVENT (N,), in their order.

    p is a truth value, 0 and 1, or -1 and 1; t of less than 64 bits is a clock that may have started again. Coordinates
    outside int16 become FAR or -1, which lie in no sensor. Raises UsageError naming the `source` and what does not fit.
    """
    if len({column.shape for column in columns.values()}) > 1 or columns["t"].ndim != 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
        raise UsageError(f"{source} has arrays {shapes}; expected one dimension and equal lengths")
    if not len(columns["t"]):
        return np.empty(0, EVENT)
    if odd := [f"{name} {column.dtype}" for name, column in columns.items() if column.dtype.kind not in "iub"]:
        remedy = "; of seconds, (t * 1e6).round().astype('int64')" if columns["t"].dtype.kind == "f" else ""
        raise UsageError(f"{source} has {', '.join(odd)}; expected whole numbers, t in microseconds{remedy}")
    if not np.isin(columns["p"], (-1, 0, 1)).all():
        raise UsageError(f"{source} has values of p other than 0 and 1, or -1 and 1")
    t = columns["t"]
    if t.dtype.kind == "u" and t.max(initial=0) > np.iinfo("i8").max:
        raise UsageError(f"{source} has t up to {t.max()}; expected microseconds, below 2**63")
    events = np.empty(len(t), EVENT)
    events["t"] = t if t.dtype.itemsize == 8 else unwrapped(t, 8 * t.dtype.itemsize)
    events["p"] = columns["p"] > 0
    for name in "xy":
        events[name] = columns[name].clip(-1 if columns[name].dtype.kind == "i" else 0, FAR)
    return events
