"""The start of a training: the network of a recipe, its branches, and their calibration."""

from torch import Tensor, nn

from spikeback.doctor import Calibration, NotReached, calibrate
from spikeback.doctor.measure.residual import residual_norms
from spikeback.errors import UsageError
from spikeback.models import create_model
from spikeback.nn import neurons, norms
from spikeback.ops.surrogate import Surrogate
from spikeback.shortcut import ShortcutNet
from spikeback.targets import Fidelity, Gain, Targets, read_targets
from spikeback.train.recipe import BranchConfig, ModelConfig, TrainConfig, naming
from spikeback.values import from_text

AUTO: Targets = (Fidelity(),)  # of a network with residual branches


def build_network(model: ModelConfig, num_classes: int, in_channels: int, time_steps: int | None = None) -> nn.Module:
    """The network for K classes and samples of C channels; `time_steps` is T of frames, None for images."""
    steps, surrogate = time_steps or model.time_steps, from_text(model.surrogate, Surrogate)
    with naming("model.neuron"):
        neuron = neurons.from_text(
            model.neuron, tau=model.tau, threshold=model.threshold, surrogate=surrogate, detach_reset=model.detach_reset
        )
    norm = norms.from_text(model.norm, threshold=model.threshold, time_steps=steps)
    return create_model(
        model.name, num_classes, model.stem, steps, in_channels, model.width, neuron, norm, model.block
    )  # fmt: skip


def add_branches(net: nn.Module, branches: BranchConfig) -> ShortcutNet:
    """The network with its branches."""
    try:
        return ShortcutNet(net, branches.taps, read=branches.read)
    except UsageError as error:
        raise UsageError(f"branches.taps: {error}") from error


def prepare(net: nn.Module, x: Tensor, y: Tensor, train: TrainConfig) -> Calibration | None:
    """Set gains and norms of an untrained network as `train.calibrate` says, on samples x and labels y (B,).

    Returns what was set, or None if nothing was to be. What was not reached is in its `note`; "auto" then leaves
    the network as it is. Raises UsageError if the network has nothing to set, or not what was asked for by name.
    """
    auto, asked = train.calibrate == "auto", f"train.calibrate={train.calibrate}"
    targets = (AUTO if residual_norms(net) else ()) if auto else read_targets(train.calibrate)
    if not targets:
        return None
    gain, fidelity = (next((t.target for t in targets if isinstance(t, kind)), None) for kind in (Gain, Fidelity))
    try:
        return calibrate(net, x, y, gain=gain, fidelity=fidelity)
    except NotReached as error:
        if auto:  # a default stops no training
            return Calibration({}, {}, None, {}, error.fidelity, f"{asked}: {error.found}")
        raise UsageError(f"{asked}: {error.found}; train.calibrate=none trains the network as it is") from error
    except UsageError as error:
        raise UsageError(f"{asked}: {error}") from error
