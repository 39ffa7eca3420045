"""Whether a network runs with the channels of a pixel side by side in memory."""

import torch

from bench.models.complexity import backward
from bench.models.networks import RUN_ERRORS, build_network
from bench.models.probing import SMALL_SIZES, find_geometry
from bench.suite.model import ModelSpec


def takes_channels_last(spec: ModelSpec, num_classes: int) -> bool:
    """Whether a network trains in channels_last.

    The networks of libraries and of `custom_models` do. A user's own network is tried on two small
    images; it does not if it calls `view` where the order of the axes matters.
    """
    if ":" not in spec.arch:
        return True
    net = build_network(spec, num_classes).to(memory_format=torch.channels_last)
    side = find_geometry(net, spec, num_classes).padded(SMALL_SIZES[0])
    images = torch.zeros(2, 3, side, side).contiguous(memory_format=torch.channels_last)
    try:
        backward(net.train()(images))
    except RUN_ERRORS:
        return False
    return True
