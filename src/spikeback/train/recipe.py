"""A recipe: everything that decides a training. Defaults are the authors' public code where the paper is silent."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from spikeback.data import DataConfig
from spikeback.errors import ImportNeeded, UsageError
from spikeback.extensions import LOADED
from spikeback.losses import CrossEntropy, DeepSupervision, Loss
from spikeback.models import list_models
from spikeback.nn.blocks import BLOCKS
from spikeback.nn.neurons import NEURONS
from spikeback.nn.norms import NORMS
from spikeback.ops.lif import wrong_leak
from spikeback.ops.surrogate import Surrogate
from spikeback.shortcut import Schedule
from spikeback.targets import read_targets, written
from spikeback.values import check_whole, from_text, instead

FORMER = {"calibrate": "none"}  # options of TrainConfig whose default is not what was done before they existed
COMBINED = {"logits": repr(CrossEntropy()), "losses": repr(DeepSupervision())}  # branches.combine -> train.loss


@dataclass
class ModelConfig:
    """The network and its neurons.

    Args:
        name: The network; `spikeback.list_models()` has all names.
        stem: First layers for small images (cifar), large images (imagenet) or event frames (dvs).
        time_steps: T, how many steps a static image is shown for. Not used for frames of events, which bring
            their own (dataset.shape in results.json).
        width: Channels of the first stage; empty is the network's own.
        tau: Leak of the neurons in [0, 1]; 1 is integrate-and-fire.
        threshold: V_th, fired at when strictly exceeded.
        surrogate: The surrogate derivative, e.g. Triangle(gamma=1.0), Rectangle(a=1.0), Tanh(k=3.0), ATan(alpha=2.0).
        detach_reset: Cut the gradient through the reset.
        neuron: The neuron by name, e.g. LIF or LIF(tau=0.5); tau, threshold, surrogate and detach_reset are for what
            it takes of them.
        norm: The norm by name, e.g. BatchNorm2d or TdBatchNorm2d(alpha=1.0); it gets the threshold if it takes one.
        block: The residual blocks by name.
    """

    name: str = "spiking_resnet18"
    stem: Literal["cifar", "imagenet", "dvs"] = "cifar"
    time_steps: int = 4
    width: int | None = None
    tau: float = 0.25
    threshold: float = 0.5
    surrogate: str = "Tanh(k=3.0)"
    detach_reset: bool = False
    neuron: str = "LIF"
    norm: str = "BatchNorm2d"
    block: str = "post"

    def __post_init__(self) -> None:
        self._take_over()
        if self.name not in list_models():
            raise UsageError(f"model.name: no model {self.name!r}{instead(self.name, list_models())}")
        for option in ("time_steps", "width"):
            if (value := getattr(self, option)) is not None:
                check_whole(f"model.{option}", value)
        if problem := wrong_leak(self.tau):
            raise UsageError(f"model.{problem}")
        if not 0 < self.threshold < float("inf"):
            raise UsageError(f"model.threshold must be a positive number, not {self.threshold}")
        self.surrogate = repr(_named("model.surrogate", self.surrogate, Surrogate))
        for option, known in (("norm", NORMS), ("block", BLOCKS)):
            with naming(f"model.{option}"):
                known.read(getattr(self, option))

    def _take_over(self) -> None:
        """What the text of the neuron says of an option of ours is that option: `LIF(tau=0.5)` is LIF and tau 0.5."""
        with naming("model.neuron"):
            _, given = NEURONS.read(self.neuron)
        defaults = {f.name: f.default for f in fields(self)}
        for option in ("tau", "threshold", "surrogate", "detach_reset"):
            if option not in given:
                continue
            value = given.pop(option)
            value = repr(value) if option == "surrogate" else value
            if getattr(self, option) not in (defaults[option], value):
                raise UsageError(
                    f"model.neuron={self.neuron} and model.{option}={getattr(self, option)}: leave one of both out"
                )
            setattr(self, option, value)
        name = self.neuron.partition("(")[0].strip()
        self.neuron = f"{name}({', '.join(f'{k}={v!r}' for k, v in given.items())})" if given else name


@dataclass
class BranchConfig:
    """The branches: open questions of the paper, each an option.

    Args:
        taps: Where branches start: after every stage, after every residual block, or a list of module names.
        read: What a branch reads, the block's spikes or the membrane current into its last neuron.
        combine: What train.loss was called before: logits is CrossEntropy(), losses is DeepSupervision().
        schedule_by: Lambda falls with every iteration (Eq. 10) or every epoch (the paper's abstract).
    """

    taps: str | list[str] = "stage"
    read: Literal["spikes", "current"] = "spikes"
    combine: Literal["logits", "losses"] | None = None
    schedule_by: Literal["iteration", "epoch"] = "iteration"


@dataclass
class TrainConfig:
    """Optimisation: SGD or Adam with a cosine to zero, stepped with every iteration.

    Args:
        epochs: Passes over the training images.
        optimizer: SGD with momentum (decay added to the gradient), or Adam with decoupled decay (torch.optim.AdamW).
            Each needs an lr of its own.
        lr: Learning rate at the start.
        momentum: Of SGD; of adam the first beta (the second is 0.999).
        weight_decay: Of weights only: biases and norms have none.
        loss: The loss, CrossEntropy() of the summed logits (Eq. 10), DeepSupervision(), or another with its parameters.
        calibrate: Before the first step, on the probe images: Gain(1.0) sets the surrogates' gains so that every
            block passes the gradient on, Fidelity(0.7) the residual norms so that the forward pass keeps its fidelity,
            [Gain(1.0), Fidelity(0.7)] both. The words gain, fidelity and both stand for these values; auto is fidelity
            where the network has residual branches, else none.
        precision: auto is bf16-mixed where the processor computes in bfloat16, else 32-true.
        best_on: Choose the best epoch on held-out training images or, the authors' rule, on the test images.
        probe: Images on which the gradient of every block is measured after each epoch.
        doctor: Also measure gradient and activity of every block every so many steps; 0 is never.
        tensorboard: Write losses and what the doctor measures for TensorBoard, into the trial's folder.
        deterministic: Use deterministic kernels only.
        threads: Threads of the processor; empty leaves PyTorch's choice.
        packed_spikes: Keep spikes for the backward pass as one bit each: less memory, a little more time.
        devices: GPUs on every machine, one process each; without a GPU so many processes. The batch is split among
            them, its statistics are those of all (docs/scale.md).
        nodes: Machines.
        accumulate: Backward passes to an optimiser step, each on a part of the batch: less memory. Every part has its
            own batch norm statistics.
    """

    epochs: int = 300
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    loss: str = "CrossEntropy()"
    calibrate: str | list[str] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    best_on: Literal["held-out", "test"] = "held-out"
    probe: int = 128
    doctor: int = 0
    tensorboard: bool = False
    deterministic: bool = True
    threads: int | None = None
    packed_spikes: bool = False
    devices: int = 1
    nodes: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        for option in ("epochs", "probe", "doctor", "threads", "devices", "nodes", "accumulate"):
            if (value := getattr(self, option)) is not None:
                check_whole(f"train.{option}", value, 0 if option == "doctor" else 1)
        if not 0 < self.lr < float("inf"):
            raise UsageError(f"train.lr must be a positive number, not {self.lr}")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"train.momentum must lie in [0, 1), not {self.momentum}")
        if not 0 <= self.weight_decay < float("inf"):
            raise UsageError(f"train.weight_decay must not be negative, not {self.weight_decay}")
        self.loss = repr(_named("train.loss", self.loss, Loss))
        if self.calibrate != "auto":
            with naming("train.calibrate"):
                self.calibrate = written(read_targets(self.calibrate))


@dataclass
class Recipe:
    """One experiment, but for method and seed.

    Args:
        title: What this is, in a few words.
        data: The images.
        model: The network.
        branches: The branches.
        train: The optimisation.
        imports: Modules from outside the package that it needs (`--import`).
    """

    title: str = "spikeback"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    branches: BranchConfig = field(default_factory=BranchConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    imports: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        train, batch, combine = self.train, self.data.batch_size, self.branches.combine
        if combine:
            if train.loss not in (COMBINED["logits"], COMBINED[combine]):
                raise UsageError(f"branches.combine={combine} and train.loss={train.loss}: give train.loss alone")
            train.loss, self.branches.combine = COMBINED[combine], None
        if batch % (train.devices * train.nodes * train.accumulate):
            raise UsageError(
                f"data.batch_size={batch} must be a multiple of train.devices={train.devices} x train.nodes="
                f"{train.nodes} x train.accumulate={train.accumulate}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Every option, as written to config.yaml and results.json."""
        values = asdict(self)
        imports = values.pop("imports")
        return values | ({"import": imports} if imports else {})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """The inverse of `as_dict`; options that an earlier version did not know are what it did."""
        values = renamed(values)
        imports = [*values.get("import", [])]
        try:
            return cls(
                title=values["title"],
                data=DataConfig(**values["data"]),
                model=ModelConfig(**values["model"]),
                branches=BranchConfig(**values["branches"]),
                train=TrainConfig(**FORMER | values["train"]),
                imports=imports,
            )
        except UsageError as error:
            if missing := [f"import={name}" for name in imports if name not in LOADED]:
                raise ImportNeeded(f"{error}; the recipe was made with {' '.join(missing)}: add it") from error
            raise


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's options, those that have another name today under that."""
    branches, train = dict(values.get("branches", {})), dict(values.get("train", {}))
    if (combine := branches.pop("combine", None)) in COMBINED and "loss" not in train:
        return {**values, "branches": branches, "train": {**train, "loss": COMBINED[combine]}}
    return dict(values)


@dataclass(frozen=True)
class Method:
    """A way to train: `vanilla`, `shortcut`, `evolutionary`, or a schedule written out, `Evolutionary(start=0.5)`."""

    name: str
    schedule: Schedule

    @classmethod
    def from_text(cls, text: str, option: str = "methods") -> "Method":
        """Read a method. Raises UsageError that names the option and lists the choices."""
        schedule = _named(option, text, Schedule)
        plain = type(schedule).__name__.lower()
        return cls(plain if schedule == type(schedule)() else repr(schedule), schedule)

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return self.name if self.name.isalpha() else f"{type(self.schedule).__name__.lower()}-{_values(self.schedule)}"


def _values(schedule: Schedule) -> str:
    return "-".join(str(value) for value in vars(schedule).values())


def _named(option: str, text: str, base: Any) -> Any:
    with naming(option):
        return from_text(text, base)


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Within, an error begins with the option."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from error
