"""What holds for every network of custom_models; a new file is tested unasked."""

import importlib

import pytest
import torch
from torch import nn

from custom_models import ARCHITECTURES

NAMES = list(ARCHITECTURES)


def build(name: str, num_classes: int) -> nn.Module:
    torch.manual_seed(0)
    return importlib.import_module(f"custom_models.{name}").build(num_classes)


@pytest.mark.parametrize("num_classes", [1, 2, 21])
@pytest.mark.parametrize("name", NAMES)
def test_logits_have_the_size_of_the_image(name: str, num_classes: int) -> None:
    net = build(name, num_classes).eval()
    m = net.input_multiple
    for height, width in ((2 * m, 3 * m), (4 * m, 2 * m)):
        with torch.no_grad():
            assert net(torch.rand(2, 3, height, width)).shape == (2, num_classes, height, width)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = build(name, 3)
    net(torch.rand(2, 3, 64, 64)).square().sum().backward()
    assert [key for key, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("num_classes", [2, 21])
@pytest.mark.parametrize("name", NAMES)
def test_steps_lower_the_loss_on_one_batch(name: str, num_classes: int) -> None:
    net = build(name, num_classes)
    image = torch.rand(2, 3, 64, 64)
    target = (
        torch.randint(0, num_classes, (2, 8, 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(net(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_eval_is_deterministic(name: str) -> None:
    net, image = build(name, 4).eval(), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(net(image), net(image))
