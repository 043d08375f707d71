"""The gradient doctor: where a network's gradient dies, why, and what helps. Measuring leaves the network as it was."""

from spikeback.doctor.calibrate import Calibration, NotReached, calibrate
from spikeback.doctor.decompose import decompose
from spikeback.doctor.diagnosis import PASSES, Diagnosis, diagnose
from spikeback.doctor.measure.blocks import block_names
from spikeback.doctor.measure.gradients import block_gradients, firing_rate, keep_histogram, propagate
from spikeback.doctor.remedies.catalogue import Remedy
from spikeback.doctor.verdict import Verdict
from spikeback.foreign.undisturbed import undisturbed

__all__ = [
    "PASSES",
    "Calibration",
    "Diagnosis",
    "NotReached",
    "Remedy",
    "Verdict",
    "block_gradients",
    "block_names",
    "calibrate",
    "decompose",
    "diagnose",
    "firing_rate",
    "keep_histogram",
    "propagate",
    "undisturbed",
]
