"""Mean field theory beside measurement: gain by block, and the phase diagram."""
