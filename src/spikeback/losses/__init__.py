"""Losses: frozen values, called with the logits of main and side branches, lambda and the labels.

A loss is a subclass of `Loss`. It is known by its name from then on: `--train.loss "CrossEntropy()"`.
"""

from spikeback.losses.base import Loss
from spikeback.losses.cross_entropy import CrossEntropy, DeepSupervision

__all__ = ["CrossEntropy", "DeepSupervision", "Loss"]
