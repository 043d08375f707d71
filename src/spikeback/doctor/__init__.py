"""What goes on inside a network: gradients by block, firing rates. Measuring leaves the network as it was."""

from spikeback.doctor.calibrate import calibrate
from spikeback.doctor.measure import block_gradients, block_names, firing_rate

__all__ = ["block_gradients", "block_names", "calibrate", "firing_rate"]
