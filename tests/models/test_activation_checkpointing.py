import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.errors import UserError
from bench.models.activation_checkpointing import recompute_activations
from custom_models import enet

Build = Callable[[], nn.Module]


class Block(nn.Module):
    def __init__(self, channels: int = 8, *after: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.after = nn.Sequential(nn.ReLU(inplace=True), *after)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.after(self.norm(self.conv(x)))
        return out


class Net(nn.Module):
    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.blocks(x))
        return out


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.unit = Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        state = self.unit(x)
        for _ in range(3):
            state = self.unit(x + state)
        return state


class Down(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, indices = F.max_pool2d(self.block(x), 2, return_indices=True)
        return pooled, indices


class Up(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))

    def forward(self, x: Tensor, *, indices: Tensor) -> Tensor:
        return F.max_unpool2d(self.block(x), indices, 2)


class Unpooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = Down(), Up()

    def forward(self, x: Tensor) -> Tensor:
        x, indices = self.down(x)
        out: Tensor = self.up(x, indices=indices)
        return out


class Dense(nn.Module):
    """Takes tensors in a list, which it extends, and others in a tuple in a dict."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(channels, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.3))

    def forward(self, features: list[Tensor], extra: dict[str, Any]) -> dict[str, Tensor]:
        features.append(self.block(torch.cat(features, 1)))
        scale, shift = extra["affine"]
        return {"sum": features[-1] * scale + shift}


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Dense(3 + 4 * i) for i in range(3))
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        total = torch.zeros((), device=x.device)
        for block in self.blocks:
            total = total + block(features, extra={"affine": (self.scale, 2)})["sum"]
        assert len(features) == 4
        return total + features[-1]


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True))).sigmoid()


def plain_layers() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Sequential(nn.ReLU())),
        nn.Sequential(nn.Conv2d(8, 2, 1)),
    )


def shared_and_inside() -> nn.Module:
    gate = Gate()
    return Net(Block(3, gate), gate, Block(8, gate))


BUILDS: dict[str, Build] = {
    "batchnorm": lambda: Net(Block(3), Block(), Block()),
    "cumulative": lambda: Net(Block(3), Block(8, nn.BatchNorm2d(8, momentum=None))),
    "instancenorm": lambda: Net(Block(3, nn.InstanceNorm2d(8, track_running_stats=True))),
    "dropout": lambda: Net(Block(3, nn.Dropout(0.4)), Block(8, nn.Dropout2d(0.4)), Block()),
    "recurrent": Recurrent,
    "unpooling": Unpooling,
    "nested": Nested,
    "shared": shared_and_inside,
    "sequentials": plain_layers,
    "frozen_norm": lambda: Net(Block(3), Block()),
    "enet": lambda: enet.build(3),
    "unet": lambda: smp.Unet("resnet18", encoder_weights=None, classes=3),
}


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = BUILDS[name]().train()
    if name == "frozen_norm":
        net.blocks[1].norm.eval()
    return net


def step(net: nn.Module, image: Tensor, amp: bool = False) -> dict[str, Tensor]:
    """Return loss, gradients and state after one training step without an update."""
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        out = net(image)
    loss = out.float().square().mean()
    loss.backward()
    after = torch.rand(3)  # the random numbers that follow are the same too
    grads = {f"grad {n}": p.grad for n, p in net.named_parameters() if p.grad is not None}
    assert grads
    return {"loss": loss.detach(), "after": after, **grads, **net.state_dict()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert list(a) == list(b)
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("amp", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", BUILDS)
def test_a_step_is_the_same_bit_for_bit(name: str, amp: bool) -> None:
    net = built(name)
    again = deepcopy(net)
    assert recompute_activations(again) > 0
    image = noise(2, 3, 32, 32)
    for _ in range(2):  # gradients add up over micro-batches
        assert_equal(step(again, image, amp), step(net, image, amp))


@pytest.mark.parametrize("name", sorted(BUILDS.keys() - {"cumulative"}))  # reads a counter's value
def test_runs_without_values(name: str) -> None:
    net = built(name).to("meta")
    recompute_activations(net)
    net(torch.zeros(2, 3, 32, 32, device="meta")).sum().backward()
    assert all(p.grad is not None and p.grad.is_meta for p in net.parameters())


def kept_bytes(net: nn.Module, image: Tensor) -> int:
    """Count the bytes that forward keeps for backward, each storage once."""
    kept = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = net(image)
    assert out.requires_grad  # keeps everything alive until here
    return sum(kept.values())


def test_keeps_half_of_a_stack() -> None:
    net = nn.Sequential(Block(3), *(Block() for _ in range(7)))
    image = noise(2, 3, 64, 64)
    before = kept_bytes(net, image)
    assert recompute_activations(net) == 8
    assert 0 < kept_bytes(net, image) <= before / 2


@pytest.mark.parametrize("encoder", ["resnet18", "se_resnet50", "efficientnet-b0"])
def test_keeps_less_than_a_third_of_a_unet(encoder: str) -> None:
    net = smp.Unet(encoder, encoder_weights=None)
    image = noise(2, 3, 64, 64)
    before = kept_bytes(net, image) - param_bytes(net)
    recompute_activations(net)
    assert kept_bytes(net, image) <= before / 3


def param_bytes(net: nn.Module) -> int:
    return sum(p.untyped_storage().nbytes() for p in net.parameters())


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    net.eval()
    yield
    net.train()


@pytest.mark.parametrize("how", [evaluating, lambda _: torch.no_grad(), None])
def test_runs_once_where_nothing_is_trained(how: Callable[[nn.Module], Any] | None) -> None:
    net = built("dropout")
    again = deepcopy(net)
    recompute_activations(again)
    calls = []
    again.blocks[1].conv.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    context = torch.inference_mode() if how is None else how(again)
    image = noise(2, 3, 8, 8)
    plain = net.eval() if how is evaluating else net
    torch.manual_seed(3)
    expected = plain(image)
    with context:
        torch.manual_seed(3)
        out = again(image)
    assert torch.equal(out, expected)
    if how is evaluating:
        out.sum().backward()
    assert len(calls) == 1


def test_a_frozen_block_simply_runs() -> None:
    net = Net(Block(3), Block())
    net.blocks[0].requires_grad_(False)
    assert recompute_activations(net) == 2
    calls = []
    for i, block in enumerate(net.blocks):
        block.conv.register_forward_hook(lambda *_, i=i: calls.append(i))
    net(noise(2, 3, 8, 8)).sum().backward()
    assert calls == [0, 1, 1]


def test_blocks_look_as_before() -> None:
    net = built("unet")
    again = deepcopy(net)
    recompute_activations(again)
    assert list(again.state_dict()) == list(net.state_dict())
    assert [n for n, _ in again.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert repr(again) == repr(net)
    for (name, module), before in zip(again.named_modules(), net.modules(), strict=True):
        assert isinstance(module, type(before)), name
        assert vars(module).keys() == vars(before).keys()
        assert type(module).__module__ == type(before).__module__
    again.load_state_dict(net.state_dict())


def test_hooks_run_once_and_flops_are_counted() -> None:
    net = built("batchnorm")
    recompute_activations(net)
    seen: list[str] = []
    net.blocks[1].register_forward_pre_hook(lambda *_: seen.append("pre"))
    net.blocks[1].register_forward_hook(lambda *_: seen.append("post"))
    net.blocks[1].register_full_backward_hook(lambda *_: seen.append("backward"))
    with FlopCounterMode(display=False) as flops:
        out = net(noise(2, 3, 8, 8))
    assert flops.get_total_flops() == 2 * 2 * 64 * (3 * 72 + 2 * 8 * 72 + 8 * 2)
    assert flops.get_flop_counts()["Net.blocks.1"]
    out.sum().backward()
    assert seen == ["pre", "post", "backward"]


def test_a_deep_copy_runs_its_own_blocks() -> None:
    net = built("batchnorm")
    recompute_activations(net)
    copied = deepcopy(net)
    before = deepcopy(net.state_dict())
    step(copied, noise(2, 3, 8, 8))
    assert_equal(net.state_dict(), before)
    assert all(p.grad is None for p in net.parameters())


def test_a_network_is_freed_without_the_garbage_collector() -> None:
    net = built("batchnorm")
    recompute_activations(net)
    step(net, noise(2, 3, 8, 8))
    gone = weakref.ref(net.blocks[0])
    gc.disable()
    try:
        del net
        assert gone() is None
    finally:
        gc.enable()


def test_a_graph_can_be_used_twice() -> None:
    net = built("dropout")
    recompute_activations(net)
    loss = net(noise(2, 3, 8, 8)).square().mean()
    weight = net.blocks[0].conv.weight
    (once,) = torch.autograd.grad(loss, weight, retain_graph=True)
    (twice,) = torch.autograd.grad(loss, weight)
    assert torch.equal(once, twice)


class Wrapper(nn.Module):
    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({f"{i}": module for i, module in enumerate(inner)})


def leaf(channels: int = 4) -> nn.Module:
    return nn.Conv2d(channels, channels, 1)


@pytest.mark.parametrize(
    ("net", "num_blocks"),
    [
        (leaf(), 0),
        (nn.Sequential(leaf(), leaf()), 0),
        (Wrapper(leaf(), nn.ReLU()), 0),  # the network itself never counts
        (Wrapper(nn.Sequential(leaf()), nn.Sequential(leaf(), nn.Sequential(leaf()))), 2),
        (Wrapper(Wrapper(nn.Sequential(leaf()))), 1),
        (Wrapper(Wrapper(leaf()), nn.Sequential(leaf())), 1),  # Sequentials only where no others
        (Wrapper(Wrapper(leaf()), Wrapper(leaf())), 2),
        (Wrapper(Wrapper(Wrapper(leaf()), Wrapper(leaf()))), 2),  # the innermost
        (Wrapper(*[Wrapper(leaf())] * 3), 1),  # one module thrice
        (Wrapper(Wrapper(nn.Identity()), Wrapper(Wrapper(nn.ReLU()))), 0),  # no layers
        (Wrapper(Wrapper(leaf(), leaf(), Wrapper(nn.Identity()))), 1),
        (Wrapper(Wrapper(leaf(), Wrapper(leaf()))), 1),  # the inner has half: the outer
        (Wrapper(Wrapper(leaf(), Wrapper(leaf()), Wrapper(leaf()))), 2),  # the inner have more
    ],
)
def test_which_blocks(net: nn.Module, num_blocks: int) -> None:
    if num_blocks == 0:
        with pytest.raises(UserError, match="memory: checkpoint finds no block"):
            recompute_activations(net)
    else:
        assert recompute_activations(net) == num_blocks


def test_a_small_module_does_not_stand_for_the_block_around_it() -> None:
    net = Net(Block(3, nn.Conv2d(8, 8, 1), Gate()), Block(8, nn.Conv2d(8, 8, 1), Gate()))
    kinds = [type(module) for module in net.modules()]
    assert recompute_activations(net) == 2
    changed = [k for k, m in zip(kinds, net.modules(), strict=True) if type(m) is not k]
    assert changed == [Block, Block]


class Preactivated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1))

    def forward(self, x: list[Tensor]) -> Tensor:
        out: Tensor = self.block(x[0])
        return out


class Listed(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.first, self.block = nn.Conv2d(3, 8, 1), block

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block([self.first(x)])
        return out


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_block_that_changes_its_input_is_refused(device: str) -> None:
    net = Listed(Preactivated()).to(device)
    image = torch.zeros(2, 3, 8, 8, device=device)
    net(image).sum().backward()
    recompute_activations(net)
    with pytest.raises(UserError, match=r"^Preactivated changes its input .* memory: checkpoint"):
        net(image)
    net.eval()(image)
    net.train().requires_grad_(False)(image)  # nothing is recomputed


class Counting(Block):
    def __init__(self) -> None:
        super().__init__(3)
        self.register_buffer("runs", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return super().forward(x) / self.runs


def test_a_block_whose_buffers_change_is_refused() -> None:
    net = Net(Counting())
    recompute_activations(net)
    with pytest.raises(UserError, match=r"^Counting changes its buffers .* memory: checkpoint"):
        net(noise(2, 3, 8, 8))


class ChangedLater(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.block = nn.Conv2d(3, 8, 1), Block()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        out: Tensor = self.block(x)
        return out + x.relu_()


def test_an_input_changed_after_the_block_is_never_run_on() -> None:
    net = ChangedLater()
    recompute_activations(net)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        net(noise(2, 3, 8, 8)).sum().backward()


class FailsAgain(Block):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.norm(x * self.conv(x))
        if self.calls == 2:
            raise ValueError("again")
        return x.exp()


def test_statistics_are_tracked_again_after_a_failure() -> None:
    net = Net(Block(3), FailsAgain())
    recompute_activations(net)
    norm = net.blocks[1].norm
    loss = net(noise(2, 3, 8, 8)).sum()
    mean = norm.running_mean
    with pytest.raises(ValueError, match="again"):
        loss.backward()
    assert norm.track_running_stats
    assert norm.running_mean is mean
    assert norm.num_batches_tracked == 1
    net(noise(2, 3, 8, 8)).sum().backward()
    assert norm.num_batches_tracked == 2
