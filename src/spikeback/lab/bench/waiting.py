"""Which share of a training step is spent waiting for the next batch."""

import statistics
import time
from typing import Any

import torch
from torch import nn

from spikeback.data import DataConfig, DataModule
from spikeback.train import ModelConfig
from spikeback.train.environment import environment, resolve_precision
from spikeback.train.start import build_network

WARM_UP = 3  # steps before the clock starts: worker processes and memory come up
EXPECTED = 0.05  # share of the time, at most


def waiting(config: DataConfig, steps: int, precision: str = "auto") -> dict[str, Any]:
    """Time `steps` optimiser steps of ResNet-20 (He) and, within them, the waits for the next batch; milliseconds."""
    data = DataModule(config, seed=0)
    data.setup()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = ModelConfig("spiking_resnet20_he", time_steps=2)
    net = build_network(model, len(data.classes), data.channels, data.time_steps).to(device).train()
    optimiser = torch.optim.SGD(net.parameters(), 0.1, 0.9)
    precision = resolve_precision(precision)
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    loader = data.train_dataloader()
    batches = _endless(loader)
    waits, totals = [], []
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        x, y = next(batches)
        waits.append(time.perf_counter() - start)
        with torch.autocast(device.type, kind, enabled=kind is not None):
            loss = nn.functional.cross_entropy(net(x.to(device)).mean(0), y.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        totals.append(time.perf_counter() - start)
    waits, totals = waits[WARM_UP:], totals[WARM_UP:]
    return {
        "dataset": data.describe()["name"],
        "shape": list(data.shape),
        "batch_size": config.batch_size,
        "num_workers": loader.num_workers,
        "auto_augment": config.auto_augment,
        "steps": steps,
        "step_ms": 1e3 * sum(totals) / steps,
        "step_median_ms": 1e3 * statistics.median(totals),
        "wait_ms": 1e3 * sum(waits) / steps,
        "share": sum(waits) / sum(totals),
        "expected": EXPECTED,
        "environment": environment(precision),
    }


def _endless(loader: Any) -> Any:
    epoch = 0
    while True:
        loader.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1
