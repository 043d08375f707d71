"""NaN and inf hide behind spikes: whoever meets one names where it is first, and changes nothing."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb
from spikeback.doctor import decompose
from spikeback.doctor.callback import DoctorCallback
from spikeback.errors import TrainingError, UsageError
from spikeback.losses.cross_entropy import mean_cross_entropy
from spikeback.train.recipe import TrainConfig
from spikeback.train.start import prepare

from .cases import assert_same, residual_net, smooth_images, snapshot, some_labels

NAN, INF = math.nan, math.inf
X, Y = smooth_images(16, 1), some_labels(16, 10)


class Trainer:
    """As much of Lightning's trainer as the callback asks for."""

    def __init__(self) -> None:
        from lightning.pytorch.plugins import Precision

        self.precision_plugin, self.global_step, self.loggers = Precision(), 0, []


def small_net() -> Any:
    return residual_net((1, 1), width=4)


def remedies(net: Any) -> list[Callable[..., Any]]:
    """Every remedy of a sick network's diagnosis, and of a chaotic one's."""
    sick = residual_net((2, 1), width=4, neuron=sb.LIF(0.25, 50.0))
    found = [*sb.diagnose(sick, X, Y, passes=()).verdict.remedies, *sb.diagnose(net, X, Y).verdict.remedies]
    assert {r.title for r in found} >= {"threshold", "calibrate"}
    return [remedy.apply for remedy in found]


def paths(net: Any) -> list[Callable[..., Any]]:
    """All that measures or treats a network, as functions of it, x and y."""
    return [
        sb.diagnose,
        sb.calibrate,
        lambda n, x, y: sb.calibrate(n, x, y, gain=None, fidelity=0.7),
        lambda n, x, y: prepare(n, x, y, TrainConfig()),
        lambda n, x, y: prepare(n, x, y, TrainConfig(calibrate="both")),
        lambda n, x, y: DoctorCallback(1, x, y, net=n, recalibrate={"gain": 1.0}).measure(Trainer(), Elsewhere()),  # pyright: ignore
        lambda n, x, y: DoctorCallback(1, x, y, net=n).measure(Trainer(), Elsewhere()),  # pyright: ignore
        *remedies(net),
    ]


class Elsewhere:
    device = torch.device("cpu")


def refused(call: Callable[..., Any], net: Any, x: Tensor, y: Tensor = Y) -> str:
    before = snapshot(net)
    with pytest.raises(UsageError) as error:
        call(net, x, y)
    assert_same(before, snapshot(net))
    return str(error.value)


def test_what_is_not_finite_is_named_on_every_path() -> None:
    net = small_net()
    places = {
        "layer2.0.conv1.0.weight": lambda n: n.layer2[0].conv1[0].weight,
        "layer1.0.conv1.1.running_var": lambda n: n.layer1[0].conv1[1].running_var,
    }
    for i, call in enumerate(paths(net)):
        bad, x = (NAN, INF, -INF)[i % 3], X.clone()
        x[3, 0, 2, 1] = bad
        message = refused(call, net, x)
        assert "x: 1 of 1024" in message
        assert f"{bad}" in message
        assert "[3, 0, 2, 1]" in message
        for name, place in places.items():
            sick = copy.deepcopy(net)
            place(sick).data[(0,) * place(sick).ndim] = bad
            message = refused(call, sick, X)
            assert f"'{name}'" in message
            assert f"{bad}" in message


def test_branches_are_looked_at_and_masks_are_left_alone() -> None:
    model = sb.ShortcutNet(small_net())
    model.net.register_buffer("mask", torch.tensor([0.0, -INF]))
    assert sb.diagnose(model, X, Y, passes=()).verdict.kind
    name, weight = next(iter(model.branches.named_parameters()))
    weight.data[(0,) * weight.ndim] = NAN
    for call in (sb.diagnose, lambda n, x, y: decompose(n, x, y, 0.25)):
        assert f"branches.{name}" in refused(call, model, X)
    callback = DoctorCallback(1, X, Y, net=model)
    with pytest.raises(UsageError, match=r"branches\."):
        callback.measure(Trainer(), Elsewhere())  # pyright: ignore
    assert callback.record == {}


def test_labels_of_a_loss_of_numbers() -> None:
    y = torch.zeros(16)
    y[5] = NAN
    loss = lambda logits, y: mean_cross_entropy(logits, y.nan_to_num().long())
    assert refused(lambda n, x, y: sb.diagnose(n, x, y, loss=loss), small_net(), X, y).startswith("y: 1 of 16")


def overflowing(_module: nn.Module, _args: Any, z: Tensor) -> Tensor:
    return z.to(torch.float16) * 1e4 * 1e4


def test_the_first_layer_whose_current_overflows() -> None:
    """Everything given is finite; what becomes of it in float16 is not. A spike hides +inf, and -inf."""
    net = small_net()
    net.layer1[0].conv2[1].register_forward_hook(overflowing)
    for call in [sb.diagnose, sb.calibrate, lambda n, x, y: sb.calibrate(n, x, y, gain=None, fidelity=0.7)]:
        message = refused(call, net, X)
        assert "layer 'layer1.0.lif2' is the first" in message
    alike: Any = residual_net((2, 1), width=4)  # as the network that this remedy is for
    alike.layer1[0].conv2[1].register_forward_hook(overflowing)
    assert "layer 'layer1.0.lif2' is the first" in refused(remedies(small_net())[0], alike, X)


def test_the_advice_for_x_works() -> None:
    x = X.clone()
    x[0, 0, 0, 0] = INF
    assert "torch.nan_to_num(x, posinf=0, neginf=0)" in refused(sb.diagnose, small_net(), x)
    assert sb.diagnose(small_net(), torch.nan_to_num(x, posinf=0, neginf=0), Y, passes=()).verdict.kind


def test_training_stops_at_the_first_batch_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    from spikeback.shortcut import Vanilla
    from spikeback.train.recipe import BranchConfig
    from spikeback.train.task import Task

    task = Task(sb.ShortcutNet(small_net()), Vanilla(), BranchConfig(), TrainConfig(), probe=(X, Y))
    task.total_steps = 4
    monkeypatch.setattr(Task, "global_step", 0)
    x = X.clone()
    x[0, 0, 0, 0] = NAN
    assert torch.isfinite(task.loss(x, Y, 0)[0])  # nothing else would have told
    with pytest.raises(TrainingError, match="image of the batch at step 1 of 4 holds NaN"):
        task.training_step((x, Y), 0)
    assert torch.isfinite(task.training_step((X, Y), 0))
