"""The arms of `spikeback bench convolution` do what their names say."""

import pytest

from spikeback.lab.bench.convolutions import both_ways
from spikeback.ops import native


@pytest.mark.skipif(not native.CONVOLVES, reason="no compiled convolutions")
def test_each_arm_runs_its_kernel_and_tells_its_rounding() -> None:
    facts = []
    for direct in (False, True):
        work, fact = both_ways(direct, images=2, channels=32, size=16)
        work()
        facts.append(fact)
    ours, theirs = facts
    assert (ours["kernel"], theirs["kernel"]) == ("ours", "PyTorch's")
    assert 0 < theirs["rounding"] < ours["rounding"] < 5e-6
