"""What a training costs, before it runs: multiply-accumulates, and hours of a GPU at an assumed rate."""

import torch

from spikeback.data.sets.source import Published, find, sources
from spikeback.errors import UsageError
from spikeback.models.macs import counting_macs
from spikeback.train.recipe import Recipe
from spikeback.train.start import build_network

# MACs a second. An assumption, not measured here: an eighth of what the tensor cores of an NVIDIA A100 do at most in
# TF32 (156 TFLOP/s by its data sheet, 2 FLOP a MAC). Spiking networks wait for memory as much as for arithmetic, so a
# run may well take twice or half the hours that follow from it.
A100_ASSUMED = 1e13


def forward_macs(recipe: Recipe) -> int:
    """Multiply-accumulates of one sample's forward pass over all T time steps, counted on the recipe's own network.

    Convolutions and linear layers, a spike counted like any number; the first convolution once for a static image,
    which enters it unchanged at every step. Not norms, neurons and branches (a branch's linear layer: below 0.03 %).
    """
    kind = _published(recipe)
    side = recipe.data.size or kind.side
    frames = recipe.data.events.time_steps if find(recipe.data.name).frames else None
    with torch.device("meta"):
        net = build_network(recipe.model, kind.classes, kind.channels, frames)
        shape = (1, kind.channels, side, side)
        x = torch.empty((frames, *shape) if frames else shape)
    with counting_macs() as macs:
        net(x)
    return macs()


def training_macs(recipe: Recipe, samples: int | None = None) -> int:
    """Multiply-accumulates of one trial: all epochs, the backward pass taken as twice the forward pass.

    Not counted: judging the held-out and test samples after every epoch, one forward pass each (on CIFAR about a ninth
    on top).

    Args:
        recipe: What is trained.
        samples: How many samples an epoch trains on; None: those of the dataset, less those held out.

    Raises:
        UsageError: a dataset whose size is not known.
    """
    if samples is None:
        samples = _published(recipe).train
        if recipe.train.best_on == "held-out":
            samples -= round(recipe.data.held_out * samples)
        samples = min(samples, recipe.data.limit or samples)
    whole = samples - samples % recipe.data.batch_size  # the last, incomplete batch is left out
    return 3 * forward_macs(recipe) * whole * recipe.train.epochs


def gpu_hours(macs: float) -> float:
    """Hours of one GPU at the assumed rate."""
    return macs / A100_ASSUMED / 3600


def cost_text(recipe: Recipe, trials: int) -> str:
    """A trial's multiply-accumulates and GPU hours, and the hours of so many trials, in words."""
    macs = training_macs(recipe)
    one, together = hours_text(macs), hours_text(trials * macs)
    rate = f"at an assumed {A100_ASSUMED:.0e} MACs/s"
    return f"{macs:.1e} MACs a trial; {one} GPU hours {rate}, {together} for {trials} trials"


def hours_text(macs: float) -> str:
    """GPU hours as "1.7" or "2,081"."""
    return f"{gpu_hours(macs):,.{0 if gpu_hours(macs) >= 100 else 1}f}"


def _published(recipe: Recipe) -> Published:
    source = find(recipe.data.name)
    if source.published is None:
        known = ", ".join(each.name for each in sources() if each.published)
        raise UsageError(f"the size of data.name={source.name} is not known beforehand; known are {known}")
    return source.published
