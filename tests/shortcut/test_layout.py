"""A tap's spikes reach its branch as (T, B, C) whichever way the network lays out time, batch and space."""

import pytest
import torch
from torch import Tensor, nn

import spikeback as sb

K, C = 5, 4
SPACE = {"images": (3, 2), "vectors": ()}


class Layout(nn.Module):
    """Hands its tapped module (T, B, C, ...) at once, (T*B, C, ...) at once, or (B, C, ...) T times."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout, self.tap, self.fc = layout, nn.Identity(), nn.Linear(C, K)

    def forward(self, x: Tensor) -> Tensor:
        if self.layout == "at once":
            y = self.tap(x)
        elif self.layout == "merged":
            y = self.tap(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        else:
            y = torch.stack([self.tap(x_t) for x_t in x])
        return self.fc(y.flatten(3).mean(3) if y.dim() > 3 else y)


@pytest.mark.parametrize("layout", ["at once", "merged", "step by step"])
@pytest.mark.parametrize("space", SPACE)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_branch_sees_every_step_of_every_sample(layout: str, space: str, steps: int, batch: int) -> None:
    example = torch.randn(2, 3, C, *SPACE[space], dtype=torch.float64)
    model = sb.ShortcutNet(Layout(layout).double(), taps=["tap"], num_classes=K, example=example).double()
    x = torch.randn(steps, batch, C, *SPACE[space], dtype=torch.float64)
    linear = next(m for m in model.branches.modules() if isinstance(m, nn.Linear))
    expected = linear(x.flatten(3).mean(3) if x.dim() > 3 else x)
    main, side = model.logits(x)
    assert main.shape == side["tap"].shape == (steps, batch, K)
    torch.testing.assert_close(side["tap"], expected, rtol=1e-12, atol=1e-12)
    averaged = model(x, 0.5, per_step=False)
    torch.testing.assert_close(averaged, (main + 0.5 * expected).mean(0, keepdim=True), rtol=1e-12, atol=1e-12)
