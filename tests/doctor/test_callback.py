"""The doctor as a callback in a user's own Lightning training: what it records, and that the training never notices."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import spikeback as sb
from spikeback.doctor.callback import DoctorCallback
from spikeback.errors import UsageError

from .cases import K, mean_cross_entropy, residual_net, smooth_images, some_labels

X, Y = smooth_images(8, 1), some_labels(8)
DATA = TensorDataset(smooth_images(32, 1, seed=1), some_labels(32, seed=1))  # four batches
ACTIVITY = ("rate", "silent", "active")
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec:FutureWarning")
SAME: Any = {"rel": 1e-5, "abs": 1e-12}


def small_net() -> nn.Module:
    return residual_net((2, 1), 4, num_classes=K)


class Plain(L.LightningModule):
    """A user's module that knows nothing of the doctor; random noise makes its training depend on the random state."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def logits(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return mean_cross_entropy(self.logits(x + 0.1 * torch.randn_like(x)), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class Branched(Plain):
    """The same with branches, whose weight falls with every step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(sb.ShortcutNet(model, "block"))

    def weight(self, step: int) -> float:
        return 0.25 * (1 - step / 100)

    def logits(self, x: Tensor) -> Tensor:
        return self.model(x, self.weight(self.global_step))


class Itself(Plain):
    """The module is the network: no attribute `model`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        del self.model
        self.body = model

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    logits = forward


class Notes(DummyLogger):
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[Any, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: Any = None) -> None:
        self.rows.append((step, dict(metrics)))


def fit(
    module: L.LightningModule, *callbacks: Callback, epochs: int = 1, checkpoint: Any = None, **options: Any
) -> Any:
    """Train on the four batches; returns the trainer."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    options = {"accelerator": "cpu", "logger": False, "log_every_n_steps": 1} | quiet | options
    trainer = L.Trainer(max_epochs=epochs, callbacks=list(callbacks), **options)
    torch.manual_seed(1)
    trainer.fit(module, DataLoader(DATA, 8), ckpt_path=checkpoint, weights_only=True)
    return trainer


@pytest.fixture
def doctor() -> Callable[..., DoctorCallback]:
    """doctor(2): every 2 steps, on the batch X, Y."""
    return lambda n=1, **options: DoctorCallback(n, X, Y, **options)


@pytest.mark.parametrize(("n", "steps"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (9, [0])])
def test_every_so_many_steps(n: int, steps: list[int], doctor: Any) -> None:
    watch = doctor(n)
    fit(Plain(small_net()), watch)
    record = watch.record
    assert record["blocks"] == ["layer1.0", "layer1.1", "layer2.0"]
    assert record["step"] == steps
    assert set(record) == {"blocks", "step", "loss", "gradient", *ACTIVITY}
    assert len(record["loss"]) == len(steps)
    for key in ("gradient", *ACTIVITY):
        assert [len(row) for row in record[key]] == [3] * len(steps)


def test_never_is_refused(doctor: Any) -> None:
    with pytest.raises(UsageError, match="every_n_steps must be at least 1, got 0"):
        doctor(0)


@pytest.mark.parametrize("kind", [Plain, Branched, Itself])
@pytest.mark.slow
def test_figures_are_those_of_a_diagnosis_at_that_moment(kind: Any, doctor: Any) -> None:
    module, expected = kind(small_net()), []
    model = getattr(module, "model", module)
    inside = {Plain: "", Branched: "net.", Itself: "body."}[kind]
    blocks = [f"{inside}{name}" for name in ("layer1.0", "layer1.1", "layer2.0")]

    def look(row: dict[str, Any]) -> None:
        weight = module.weight(max(row["step"] - 1, 0)) if kind is Branched else 0.0
        found = sb.diagnose(model, X, Y, weight=weight, blocks=blocks, passes=())
        last = {layer["block"]: layer for layer in found.layers}  # of each block
        expected.append((row, found, [last[name] for name in blocks]))

    watch = doctor(2, notify=look)
    fit(module, watch)
    assert len(expected) == 3
    for i, (row, found, layers) in enumerate(expected):
        assert row == {key: watch.record[key][i] for key in ("step", "loss", "gradient", *ACTIVITY)}
        assert row["loss"] == pytest.approx(found.facts["loss"], **SAME)
        assert row["gradient"] == pytest.approx([block["gradient"] for block in found.blocks], **SAME)
        assert min(row["gradient"]) > 0
        for key in ACTIVITY:
            assert row[key] == pytest.approx([layer[key] for layer in layers], **SAME)
    assert len({row["loss"] for row, *_ in expected}) == 3  # it is the network of the moment


@pytest.mark.parametrize("kind", [Plain, Branched, Itself])
def test_training_is_the_same_to_the_bit(kind: Any, doctor: Any) -> None:
    one, other = kind(small_net()), kind(small_net())
    fit(one)
    fit(other, doctor())
    assert one.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert all(
        p.grad is None or torch.equal(p.grad, q.grad) for p, q in zip(one.parameters(), other.parameters(), strict=True)
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())


def test_weight_of_the_branches_may_be_given(doctor: Any) -> None:
    asked: list[int] = []
    zero, one = doctor(weight=lambda step: 0.0), doctor(weight=lambda step: asked.append(step) or 1.0)
    for watch in (zero, one):
        fit(Branched(small_net()), watch)
    assert asked == [0, 0, 1, 2, 3]  # the step just done
    assert zero.record["loss"][0] == pytest.approx(mean_cross_entropy(small_net()(X), Y).item(), **SAME)
    assert zero.record["loss"] != one.record["loss"]


def test_first_row_is_the_network_that_training_starts_with(doctor: Any) -> None:
    """Lightning calls a callback's on_train_start before the module's own, which may change the network."""

    class Prepared(Plain):
        def on_train_start(self) -> None:
            nn.init.zeros_(self.model.get_parameter("fc.weight"))

    watch = doctor(9)
    fit(Prepared(small_net()), watch)
    assert watch.record["loss"] == [pytest.approx(torch.tensor(float(K)).log().item())]


@pytest.mark.parametrize("value", [0.5, torch.ones(3)])
def test_weight_that_is_no_schedule_is_not_taken_for_one(value: Any, doctor: Any) -> None:
    module, watch = Plain(sb.ShortcutNet(small_net())), doctor(4)
    module.weight = value  # e.g. of the classes
    fit(module, watch)
    assert watch.record["step"] == [0, 4]


def test_network_may_be_given(doctor: Any) -> None:
    net = small_net()
    watch = doctor(4, net=net)
    fit(Plain(nn.Sequential(net)), watch)
    assert watch.record["blocks"] == ["layer1.0", "layer1.1", "layer2.0"]


def test_accumulated_batches_are_no_steps(doctor: Any) -> None:
    watch = doctor(1)
    fit(Plain(small_net()), watch, accumulate_grad_batches=2)
    assert watch.record["step"] == [0, 1, 2]


def test_resumed_training_keeps_the_record(doctor: Any, tmp_path: Path) -> None:
    whole, before, after = doctor(2), doctor(2), doctor(2)
    fit(Plain(small_net()), whole, epochs=2)
    path = tmp_path / "half.ckpt"
    fit(Plain(small_net()), before).save_checkpoint(path)
    assert torch.load(path, weights_only=True)["callbacks"]["DoctorCallback"]["record"] == before.record
    torch.manual_seed(5)
    fit(Plain(small_net()), after, epochs=2, checkpoint=path)
    assert after.record["step"] == whole.record["step"] == [0, 2, 4, 6, 8]
    assert {k: v[:3] for k, v in after.record.items()} == {k: v[:3] for k, v in before.record.items()}


def test_it_may_join_a_training_that_is_under_way(doctor: Any, tmp_path: Path) -> None:
    path, watch = tmp_path / "half.ckpt", doctor(3)
    fit(Plain(small_net())).save_checkpoint(path)
    fit(Plain(small_net()), watch, epochs=2, checkpoint=path)
    assert watch.record["step"] == [6]


def test_recalibrated_before_every_measurement(doctor: Any) -> None:
    module, gains = Plain(small_net()), []

    def look(row: dict[str, Any]) -> None:
        gains.append({name: float(value) for name, value in module.model.state_dict().items() if "gain" in name})

    expected = copy.deepcopy(module.model)
    sb.calibrate(expected, X, Y, gain=1.0)
    fit(module, doctor(4, recalibrate={"gain": 1.0}, notify=look))
    first = {name: float(value) for name, value in expected.state_dict().items() if "gain" in name}
    assert set(first.values()) != {1.0}
    assert gains[0] == pytest.approx(first)
    assert gains[1] != pytest.approx(first)


def test_every_logger_gets_the_row(doctor: Any) -> None:
    watch, notes = doctor(2), [Notes(), Notes()]
    fit(Plain(small_net()), watch, logger=notes)
    for rows in ([row for row in logger.rows if row[1]] for logger in notes):
        assert [step for step, _ in rows] == [0, 2, 4]
        for i, (_, values) in enumerate(rows):
            named = {
                key: zip(watch.record["blocks"], watch.record[key][i], strict=True) for key in ("gradient", *ACTIVITY)
            }
            assert values == {f"doctor/{key}/{block}": v for key, pairs in named.items() for block, v in pairs}
