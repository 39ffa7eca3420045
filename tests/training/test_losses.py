import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torchvision.ops import sigmoid_focal_loss

from bench.errors import UserError
from bench.suite.loss import CrossEntropy, Dice, Focal, LossSpec, OneLoss, Sum
from bench.training.losses import build_loss, mean

CPU = torch.device("cpu")
WEIGHTS = (1.0, 2.0, 0.5, 3.0)
SPECS: dict[str, LossSpec] = {
    "cross_entropy": CrossEntropy(),
    "weighted": CrossEntropy(class_weights=WEIGHTS),
    "smooth": CrossEntropy(class_weights=WEIGHTS, label_smoothing=0.1),
    "focal": Focal(),
    "weighted_focal": Focal(class_weights=WEIGHTS, gamma=0.5),
    "dice": Dice(),
    "sum": Sum(terms=(CrossEntropy(class_weights=WEIGHTS), Dice(weight=0.5), Focal(weight=2))),
}
every_loss = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def pair(seed: int = 0, void: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, 4, 6, 5, generator=generator, requires_grad=True)
    target = torch.randint(0, 4, (8, 6, 5), generator=generator)
    # uneven: the first images have far more void than the last
    share = torch.linspace(2 * void, 0, 8).view(8, 1, 1)
    target[torch.rand(8, 6, 5, generator=generator) < share] = 255
    return logits, target


def value(spec: LossSpec, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    loss_fn = build_loss(spec, logits.shape[1], CPU, 0.4)
    return mean(loss_fn.totals(logits, target), loss_fn.weights(target))


def test_every_loss_is_tested() -> None:
    schema = TypeAdapter(LossSpec).json_schema()
    names = {part["properties"]["name"]["const"] for part in schema["$defs"].values()}
    assert names == {spec.name for spec in SPECS.values()}


@pytest.mark.parametrize("weights", [None, WEIGHTS])
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


@every_loss
@pytest.mark.parametrize("num_micro", [2, 4, 8])
def test_micro_batches_add_up(spec: LossSpec, num_micro: int) -> None:
    loss_fn = build_loss(spec, 4, CPU, 0.4)
    logits, target = pair()
    target[2] = 255  # with micro-batches of one image, one is all void
    whole = mean(loss_fn.totals(logits, target), loss_fn.weights(target))
    whole.backward()
    assert logits.grad is not None
    assert logits.grad[[0, 1, 3, 4, 5, 6, 7]].abs().amax((1, 2, 3)).min() > 0
    split = logits.detach().clone().requires_grad_()
    weight = loss_fn.weights(target)
    size = 8 // num_micro
    parts = []
    for part, truth in zip(split.split(size), target.split(size), strict=True):
        parts.append(mean(loss_fn.totals(part, truth), weight))
        parts[-1].backward(retain_graph=True)
    torch.testing.assert_close(torch.stack(parts).sum(), whole)
    torch.testing.assert_close(split.grad, logits.grad)


@every_loss
def test_all_void_is_zero_with_a_gradient(spec: LossSpec) -> None:
    logits, target = pair()
    target[:] = 255
    loss = value(spec, logits, target)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@every_loss
def test_void_has_no_influence(spec: LossSpec) -> None:
    logits, target = pair()
    void = target == 255
    loss = value(spec, logits, target)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad.movedim(1, -1)[void] == 0).all()
    assert (logits.grad.movedim(1, -1)[~void] != 0).any(1).all()
    other = logits.detach().clone()
    other.movedim(1, -1)[void] += torch.tensor([50.0, -20.0, 3.0, 0.0])
    assert value(spec, other, target).item() == loss.item()


@every_loss
@pytest.mark.parametrize("right", [True, False])
def test_certainty_has_a_finite_gradient(spec: LossSpec, right: bool) -> None:
    logits, target = pair()
    label = target[7, 0, 0] if right else (target[7, 0, 0] + 1) % 4
    with torch.no_grad():
        logits[7, label, 0, 0] = 1e4
    loss = value(spec, logits, target)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert loss.isfinite()


@pytest.mark.parametrize("right", [True, False])
def test_focal_of_certainty(right: bool) -> None:
    spec = Focal(gamma=0.5)
    logits = torch.tensor([1e4, 0.0]).view(1, 2, 1, 1).requires_grad_()
    loss = value(spec, logits, torch.full((1, 1, 1), 0 if right else 1))
    loss.backward()
    assert loss.item() == (0 if right else 1e4)
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == ([0, 0] if right else [1, -1])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_of_gamma_0_is_torchs_cross_entropy(weights: tuple[float, ...] | None) -> None:
    logits, target = pair()
    ours = value(Focal(gamma=0, class_weights=weights), logits, target)
    weight = None if weights is None else torch.tensor(weights)
    reference = F.cross_entropy(logits, target, weight=weight, ignore_index=255)
    torch.testing.assert_close(ours, reference)
    [grad] = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(grad, torch.autograd.grad(reference, logits)[0])


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_focal_pixel_by_pixel(weights: tuple[float, ...] | None, gamma: float) -> None:
    logits, target = pair()
    total = torch.zeros((), dtype=torch.float64)
    weight = 0.0
    for n, y, x in (target != 255).nonzero().tolist():
        label = int(target[n, y, x])
        p = torch.softmax(logits[n, :, y, x].double(), 0)[label]
        total = total - (weights or (1, 1, 1, 1))[label] * (1 - p) ** gamma * p.log()
        weight += (weights or (1, 1, 1, 1))[label]
    reference = total / weight
    ours = value(Focal(gamma=gamma, class_weights=weights), logits, target)
    assert ours.item() == pytest.approx(reference.item(), rel=1e-5)
    [grad] = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(grad, torch.autograd.grad(reference, logits)[0])


def test_focal_of_one_pixel_by_hand() -> None:
    logits = torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1)  # p of 3/4 and 1/4
    for label, expected in ((0, 0.25**2 * 0.2876821), (1, 0.75**2 * 1.3862944)):
        loss = value(Focal(), logits, torch.full((1, 1, 1), label))
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_focal_of_two_classes_is_the_libraries() -> None:
    # Theirs uses one sigmoid per class. If the two logits are minus and plus the margin, both
    # sigmoids equal the softmax.
    logits, target = pair()
    target = torch.where(target == 255, target, target % 2)
    logits = logits[:, :2]
    ours = value(Focal(), logits, target)
    margin = logits[:, 1] - logits[:, 0]
    of_smp = smp.losses.FocalLoss("multiclass", gamma=2, ignore_index=255)
    torch.testing.assert_close(ours, of_smp(torch.stack([-margin, margin], 1), target))
    valid = target != 255
    of_torchvision = sigmoid_focal_loss(
        margin[valid], target[valid].float(), alpha=-1, gamma=2, reduction="mean"
    )
    torch.testing.assert_close(ours, of_torchvision)


def test_dice_by_hand() -> None:
    # p of class 0: 3/4, 1/2 / 1/4, 1/2; truth: 0, 0 / 1, 1.
    p = torch.tensor([[0.75, 0.5], [0.25, 0.5]])
    logits = torch.stack([p, 1 - p]).log()[None]
    target = torch.tensor([[[0, 0], [1, 1]]])
    # Class 0: 2 (3/4 + 1/2) / (2 + 2). Class 1: 2 (3/4 + 1/2) / (2 + 2).
    assert value(Dice(), logits, target).item() == pytest.approx(1 - 0.625)
    target[0, 0, 1] = 255
    # Class 0: 2 (3/4) / (3/2 + 1) = 3/5. Class 1: 2 (5/4) / (3/2 + 2) = 5/7.
    assert value(Dice(), logits, target).item() == pytest.approx(1 - (3 / 5 + 5 / 7) / 2)


def test_dice_of_one_image_is_smps() -> None:
    logits, target = pair(void=0)
    assert target[0].unique().tolist() == [0, 1, 2, 3]
    reference = smp.losses.DiceLoss("multiclass", from_logits=True)(logits[:1], target[:1])
    torch.testing.assert_close(value(Dice(), logits[:1], target[:1]), reference)


def test_dice_is_smps_averaged_over_images() -> None:
    logits, target = pair()
    target[1][target[1] == 3] = 0  # a class that does not occur
    target[4][target[4] != 255] = 2  # only one class occurs
    target[6] = 255
    losses = []
    for image, truth in zip(logits, target, strict=True):
        classes = [label for label in truth.unique().tolist() if label != 255]
        if classes:
            dice = smp.losses.DiceLoss("multiclass", classes, ignore_index=255)
            losses.append(dice(image[None], truth[None]))
    assert len(losses) == 7
    ours, reference = value(Dice(), logits, target), torch.stack(losses).mean()
    torch.testing.assert_close(ours, reference)
    [grad] = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(grad, torch.autograd.grad(reference, logits)[0])


def test_dice_leaves_out_classes_that_are_not_there() -> None:
    logits, target = pair(void=0)
    target = target % 2
    more = torch.cat([logits, torch.full((8, 2, 6, 5), -1e4)], 1)  # two classes that never occur
    torch.testing.assert_close(value(Dice(), more, target), value(Dice(), logits, target))
    # Only the two classes that occur count; no probability is anywhere else.
    apart = logits.detach().clone()
    apart[:, 2:] = -1e4
    torch.testing.assert_close(value(Dice(), apart, target), value(Dice(), apart[:, :2], target))


def test_an_image_of_void_counts_for_nothing_in_dice() -> None:
    logits, target = pair()
    target[3] = 255
    rest = [0, 1, 2, 4, 5, 6, 7]
    torch.testing.assert_close(
        value(Dice(), logits, target), value(Dice(), logits[rest], target[rest])
    )


def test_a_sum_is_its_terms_times_their_weights() -> None:
    logits, target = pair()
    terms: tuple[OneLoss, ...] = (
        CrossEntropy(),
        Dice(weight=0.5),
        Focal(weight=3, class_weights=WEIGHTS),
    )
    alone = [value(term.model_copy(update={"weight": 1.0}), logits, target) for term in terms]
    expected = alone[0] + 0.5 * alone[1] + 3 * alone[2]
    torch.testing.assert_close(value(Sum(terms=terms), logits, target), expected)


def test_class_weights_are_one_a_class() -> None:
    with pytest.raises(UserError, match=r"class_weights has 3 numbers; the dataset has 4 classes"):
        build_loss(CrossEntropy(class_weights=(1, 2, 3)), 4, CPU, 0.4)
    with pytest.raises(UserError, match=r"class_weights has 5 numbers; the dataset has 4 classes"):
        build_loss(Sum(terms=(Dice(), Focal(class_weights=(1,) * 5))), 4, CPU, 0.4)


def test_auxiliary_heads_add_by_their_weight() -> None:
    logits, target = pair()
    aux, _ = pair(seed=1)
    loss_fn = build_loss(CrossEntropy(), 4, CPU, 0.4)
    heads = {"out": logits, "aux": aux}
    ours = mean(loss_fn.totals(heads, target), loss_fn.weights(target))
    one, other = (F.cross_entropy(x, target, ignore_index=255) for x in (logits, aux))
    assert ours.item() == pytest.approx((one + 0.4 * other).item(), rel=1e-6)
    assert loss_fn.totals({"out": logits}, target) == loss_fn.totals(logits, target)


@every_loss
def test_auxiliary_heads_of_every_loss(spec: LossSpec) -> None:
    logits, target = pair()
    aux, _ = pair(seed=1)
    loss_fn = build_loss(spec, 4, CPU, 0.25)
    ours = mean(loss_fn.totals({"aux": aux, "out": logits}, target), loss_fn.weights(target))
    expected = value(spec, logits, target) + 0.25 * value(spec, aux, target)
    torch.testing.assert_close(ours, expected)


@every_loss
def test_losses_of_half_precision_logits_are_float32(spec: LossSpec) -> None:
    logits, target = pair()
    half = logits.detach().bfloat16()
    ours = value(spec, half, target)
    assert ours.dtype == torch.float32
    assert ours.item() == value(spec, half.float(), target).item()
