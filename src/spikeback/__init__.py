"""Train deep spiking neural networks, see where their gradient dies, and get the plain network back."""

__version__ = "0.1.0"
