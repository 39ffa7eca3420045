"""A network whose predictions hang on no rounding: they are the same on every machine.

It tells the classes of `shapes` by colour alone, and by whole steps of 8 bits: no two logits are
closer than a tenth of such a step.
"""

import torch
from torch import nn

WEIGHTS = ((0, 0, 0), (1, 0, -1), (-1, 0, 1), (-1, 1, 0), (0, -1, 1), (1, -1, 0))
LEAST = 40  # steps by which a colour must stand out


def build(num_classes: int) -> nn.Module:
    """Map normalize: none images (N, 3, H, W) in 0..1 to logits (N, 6, H, W)."""
    assert num_classes == len(WEIGHTS)
    conv = nn.Conv2d(3, num_classes, 1)
    biases = [(0.1 * k - LEAST * (k > 0)) / 255 for k in range(num_classes)]
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(WEIGHTS).view(num_classes, 3, 1, 1))
        conv.bias.copy_(torch.tensor(biases))
    return conv
