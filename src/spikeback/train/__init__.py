"""Training: the recipe, the Lightning module, and trials of several methods and seeds."""

from spikeback.losses.cross_entropy import mean_cross_entropy
from spikeback.train.recipe import BranchConfig, Method, ModelConfig, Recipe, TrainConfig
from spikeback.train.task import Task
from spikeback.train.trials import compare, run_trial

__all__ = [
    "BranchConfig",
    "Method",
    "ModelConfig",
    "Recipe",
    "Task",
    "TrainConfig",
    "compare",
    "mean_cross_entropy",
    "run_trial",
]
