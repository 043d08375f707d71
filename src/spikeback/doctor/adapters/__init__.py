"""Spiking layers of any framework, as the doctor needs them: a neuron, its recursion, its settings."""
