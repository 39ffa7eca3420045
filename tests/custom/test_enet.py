from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from custom_models import enet


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_the_order_of_stages_two_and_three() -> None:
    net = enet.build(21)
    expected = [
        ((3, 3), (1, 1)),
        ((3, 3), (2, 2)),
        ((1, 5), (1, 1)),
        ((3, 3), (4, 4)),
        ((3, 3), (1, 1)),
        ((3, 3), (8, 8)),
        ((1, 5), (1, 1)),
        ((3, 3), (16, 16)),
    ]
    for stage in (net.stage2, net.stage3):
        found = [(block.branch[3].kernel_size, block.branch[3].dilation) for block in stage]
        assert found == expected
    asymmetric = net.stage2[2].branch
    assert asymmetric[4].kernel_size == (5, 1)
    assert asymmetric[3].bias is None
    assert asymmetric[4].bias is not None


def test_activations_and_dropout() -> None:
    net = enet.build(21)
    encoder = [net.down1, net.stage1, net.down2, net.stage2, net.stage3]
    decoder = [net.up4, net.stage4, net.up5, net.stage5]
    assert not any(isinstance(m, nn.ReLU) for part in encoder for m in part.modules())
    assert not any(isinstance(m, nn.PReLU) for part in decoder for m in part.modules())
    rates = {
        name: {m.p for m in part.modules() if isinstance(m, nn.Dropout2d)}
        for name, part in net.named_children()
    }
    assert rates["down1"] == rates["stage1"] == {0.01}
    assert rates["down2"] == rates["stage2"] == rates["stage3"] == {0.1}
    assert rates["stage4"] == rates["stage5"] == {0.0}
    assert {m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}


def test_unpooling_puts_values_back_where_they_were() -> None:
    up = enet.Up(8, 4).eval()
    x = torch.rand(1, 4, 6, 6)
    _, indices = nn.functional.max_pool2d(x, 2, return_indices=True)
    for parameter in up.branch.parameters():
        nn.init.zeros_(parameter)
    out = up(torch.rand(1, 8, 3, 3), indices)
    places = torch.zeros(1, 4, 36).scatter_(2, indices.flatten(2), 1.0).view_as(out) > 0
    assert (out[~places] == 0).all()
    assert (out[places] != 0).any()


def test_the_shortcut_is_padded_with_channels_at_the_end() -> None:
    down = enet.Down(4, 8, 0.0).eval()
    for parameter in down.branch.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(1, 4, 6, 6)
    out, _ = down(x)
    torch.testing.assert_close(out[:, :4], nn.functional.max_pool2d(x, 2))
    assert (out[:, 4:] == 0).all()


def test_the_deterministic_unpool_equals_torchs(deterministic: None) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 5, 12, 8, generator=generator)
    pooled, indices = F.max_pool2d(image, 2, return_indices=True)
    values = torch.randn(pooled.shape, generator=generator)
    upstream = torch.randn(image.shape, generator=generator)
    found = values.clone().requires_grad_()
    unpooled = enet.unpool(found, indices)
    unpooled.backward(upstream)
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        F.max_unpool2d(values, indices, [2, 2])
    torch.use_deterministic_algorithms(False)
    expected = values.clone().requires_grad_()
    by_torch = F.max_unpool2d(expected, indices, [2, 2])
    by_torch.backward(upstream)
    assert torch.equal(unpooled, by_torch)
    assert found.grad is not None
    assert expected.grad is not None
    assert torch.equal(found.grad, expected.grad)


def test_enet_trains_deterministically(deterministic: None) -> None:
    net = enet.build(5)
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
