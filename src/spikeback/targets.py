"""What calibration aims at, as frozen values: the gain of every block's gradient, the fidelity of the forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

from spikeback.errors import UsageError
from spikeback.values import from_text, is_number


@dataclass(frozen=True)
class Target:
    """Base of the targets."""

    target: float


@dataclass(frozen=True)
class Gain(Target):
    """||dL/d(input)|| / ||dL/d(output)|| that every block is to have, set by the heights of its surrogates."""

    target: float = 1.0

    def __post_init__(self) -> None:
        if not is_number(self.target) or not 0 < self.target < float("inf"):
            raise UsageError(f"gain must be a positive number or None, got {self.target}")


@dataclass(frozen=True)
class Fidelity(Target):
    """Correlation that the last block's spikes for x and x + 1 % noise are to keep, set by the residual norms."""

    target: float = 0.7

    def __post_init__(self) -> None:
        if not is_number(self.target) or not 0 < self.target < 1:
            raise UsageError(f"fidelity must lie in (0, 1) or be None, got {self.target}")


Targets = tuple[Target, ...]
WORDS: dict[str, Targets] = {  # of `train.calibrate`, beside "auto", which depends on the network
    "none": (), "gain": (Gain(),), "fidelity": (Fidelity(),), "both": (Gain(), Fidelity()),
}  # fmt: skip


def read_targets(given: str | Sequence[str]) -> Targets:
    """Targets as they are written: "none", "gain", "fidelity", "both", "Fidelity(0.7)", or a list of values.

    Raises UsageError for another word, and for two targets of a kind.
    """
    if isinstance(given, str):
        return WORDS[given] if given in WORDS else (_read(given),)
    targets = tuple(sorted((_read(text) for text in given), key=lambda target: isinstance(target, Fidelity)))
    if len({type(target) for target in targets}) < len(targets):
        raise UsageError(f"two targets of a kind in {list(given)}; give each once, e.g. [Gain(1.0), Fidelity(0.7)]")
    return targets


def written(targets: Targets) -> str | list[str]:
    """The inverse of `read_targets`: the word where there is one."""
    for word, known in WORDS.items():
        if targets == known:
            return word
    return repr(targets[0]) if len(targets) == 1 else [repr(target) for target in targets]


def _read(text: str) -> Target:
    if text in ("gain", "fidelity"):
        return WORDS[text][0]
    try:
        return from_text(text, Target)
    except UsageError as error:
        words = "; or auto, none, gain, fidelity, both" if "no target" in str(error) else ""
        raise UsageError(f"{error}{words}") from error
