import pytest
import torch
import torch.nn.functional as F

from bench.errors import UserError
from bench.loss_spec import CrossEntropy
from bench.losses import build_loss, mean

CPU = torch.device("cpu")


def pair(seed: int = 0, void: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, 4, 6, 5, generator=generator, requires_grad=True)
    target = torch.randint(0, 4, (8, 6, 5), generator=generator)
    # uneven: the first images have much more void than the last
    share = torch.linspace(2 * void, 0, 8).view(8, 1, 1)
    target[torch.rand(8, 6, 5, generator=generator) < share] = 255
    return logits, target


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 3.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_batch_is_torchs_mean(weights: tuple[float, ...] | None, smoothing: float) -> None:
    logits, target = pair()
    loss_fn = build_loss(
        CrossEntropy(class_weights=weights, label_smoothing=smoothing), 4, CPU, 0.4
    )
    ours = mean(loss_fn.totals(logits, target), loss_fn.weights(target))
    reference = F.cross_entropy(
        logits,
        target,
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=255,
        label_smoothing=smoothing,
    )
    assert ours.item() == pytest.approx(reference.item(), rel=1e-6)


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 3.0)])
@pytest.mark.parametrize("num_micro", [2, 4, 8])
def test_micro_batches_add_up(weights: tuple[float, ...] | None, num_micro: int) -> None:
    loss_fn = build_loss(CrossEntropy(class_weights=weights), 4, CPU, 0.4)
    logits, target = pair()
    mean(loss_fn.totals(logits, target), loss_fn.weights(target)).backward()
    whole = logits.grad
    split, target = pair()
    weight = loss_fn.weights(target)
    size = 8 // num_micro
    for part, truth in zip(split.split(size), target.split(size), strict=True):
        mean(loss_fn.totals(part, truth), weight).backward(retain_graph=True)
    torch.testing.assert_close(split.grad, whole)


def test_all_void_is_zero_with_a_gradient() -> None:
    logits, target = pair()
    loss_fn = build_loss(CrossEntropy(), 4, CPU, 0.4)
    target[:] = 255
    loss = mean(loss_fn.totals(logits, target), loss_fn.weights(target))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_class_weights_are_one_a_class() -> None:
    with pytest.raises(UserError, match=r"class_weights has 3 numbers; the dataset has 4 classes"):
        build_loss(CrossEntropy(class_weights=(1, 2, 3)), 4, CPU, 0.4)


def test_auxiliary_heads_add_by_their_weight() -> None:
    logits, target = pair()
    aux, _ = pair(seed=1)
    loss_fn = build_loss(CrossEntropy(), 4, CPU, 0.4)
    heads = {"out": logits, "aux": aux}
    ours = mean(loss_fn.totals(heads, target), loss_fn.weights(target))
    one, other = (F.cross_entropy(x, target, ignore_index=255) for x in (logits, aux))
    assert ours.item() == pytest.approx((one + 0.4 * other).item(), rel=1e-6)
    assert loss_fn.totals({"out": logits}, target) == loss_fn.totals(logits, target)
