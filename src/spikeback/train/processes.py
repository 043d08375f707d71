"""The processes that train one network: started by Lightning itself, by torchrun or by SLURM."""

import atexit
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any, cast

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed, nn

from spikeback.data.ranks import ProcessRank
from spikeback.errors import TrainingError, UsageError
from spikeback.train.recipe import TrainConfig

SENDING = ("forward_sync_buffers", "broadcast_buffers")  # of buffers at every forward pass; PyTorch 2.14 renamed it
KNOWN = signature(nn.parallel.DistributedDataParallel).parameters
NO_SENDING: dict[str, Any] = {next(name for name in SENDING if name in KNOWN): False}


def placement(train: TrainConfig) -> dict[str, Any]:
    """Lightning's options for where a training runs."""
    several = train.devices * train.nodes > 1
    return {
        "accelerator": "cuda" if torch.cuda.is_available() else "cpu",  # no other: Apple's has no double precision
        "devices": train.devices,
        "num_nodes": train.nodes,
        "accumulate_grad_batches": train.accumulate,
        "use_distributed_sampler": False,  # ours knows the rank of each process
        # The norms' statistics are those of all processes already. Were buffers sent round at every forward pass,
        # processes could not judge different numbers of batches.
        "strategy": DDPStrategy(**NO_SENDING) if several else "auto",
    }


def own_rank(train: TrainConfig) -> ProcessRank:
    """What falls to this process, whoever started it. The one of rank 0 writes and speaks.

    Raises:
        UsageError: not as many GPUs, or another number of processes than were started.
    """
    processes = train.devices * train.nodes
    asked = f"train.devices={train.devices} train.nodes={train.nodes}"
    started = int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else processes
    if started != processes:
        raise UsageError(f"{asked} asks for {processes} processes, but torchrun started {started}; make them equal")
    if processes == 1:
        return ProcessRank(accumulate=train.accumulate)
    if torch.cuda.is_available() and torch.cuda.device_count() < train.devices:
        raise UsageError(
            f"train.devices={train.devices} asks for more GPUs than there are: {torch.cuda.device_count()}"
        )
    try:  # Lightning knows who starts processes here, and which one this is
        with quietly():
            trainer = L.Trainer(**placement(train), logger=False, enable_checkpointing=False)
        environment = cast(DDPStrategy, trainer.strategy).cluster_environment
        if environment is not None:
            environment.validate_settings(train.devices, train.nodes)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise UsageError(f"{asked}: {error}") from error
    return ProcessRank(trainer.global_rank, processes, train.accumulate, train.devices)


@contextmanager
def quietly() -> Iterator[None]:
    """Within, Lightning keeps its notes and hints to itself."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Workers are the recipe's choice, and the other is between Lightning and torch.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", category=FutureWarning, module="lightning.pytorch.utilities._pytree")
        warnings.filterwarnings(
            "ignore", message="Grad strides do not match bucket view strides"
        )  # of 1x1 convolutions
        yield


@contextmanager
def together(trainer: L.Trainer) -> Iterator[None]:
    """Around a training: no process waits for one that is gone.

    Processes that Lightning started end with this one. Raises TrainingError where the connection to another broke.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, getattr(distributed, "DistError", ())) or "gloo" in str(error):
            raise TrainingError("another process of this training ended; it says why itself") from error
        raise
    finally:
        for process in getattr(trainer.strategy.launcher, "procs", []):
            atexit.register(process.kill)


class OwnSignals(Callback):
    """SIGTERM stays what it was before the training: at it Lightning would have all processes talk to each other,
    whatever they are at, which may never end.
    """

    def __init__(self) -> None:
        self.before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)


def broadcast_state(module: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if distributed.is_available() and distributed.is_initialized():
        for value in module.state_dict().values():
            distributed.broadcast(value, 0)
