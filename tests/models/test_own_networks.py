"""Users' own networks: every common way to write one runs, or is refused with the cause."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.models.complexity import complexity
from bench.models.probing import find_geometry, gives_probabilities, require_one_device
from bench.models.segmenter import build_model
from bench.suite.model import ModelSpec

ONES = torch.ones(1, 3, 1, 1)


class Own(nn.Module):
    """Two convolutions, with something between them that networks in the wild do."""

    def __init__(self, num_classes: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, num_classes, 1)
        self.scale = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)  # no buffer
        self.array = torch.from_numpy(np.ones((1, 3, 1, 1), np.float32))

    def forward(self, image: Tensor) -> object:
        match self.how:
            case "tensor attribute":
                image = image * self.scale
            case "array attribute":
                image = image * self.array
            case "global":
                image = image * ONES
            case "numpy":
                image = image * torch.from_numpy(np.ones(1, np.float32))
            case "zeros":
                image = image + torch.zeros(image.shape)
            case "pad":
                image = torch.cat((image[:, :2], torch.zeros(len(image), 1, *image.shape[2:])), 1)
            case "where":
                image = torch.where(torch.ones(image.shape, dtype=torch.bool), image, image)
            case "grid":
                rows, columns = (torch.linspace(-1, 1, n) for n in image.shape[2:])
                grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)
                grid = grid[None].expand(len(image), -1, -1, -1)
                image = F.grid_sample(image, grid, align_corners=True)
            case "index":
                image = image[:, torch.arange(3).flip(0)]
            case "item":
                image = image * float(image.mean() > -1e9)
            case "branch":
                image = image * 2 if image.mean() > 1e9 else image
            case "new weights":
                image = F.conv2d(image, torch.ones(3, 3, 1, 1))
            case "to device":
                image = image + torch.zeros(image.shape).to(image.device)
        return self.end(self.last(self.first(image)))

    def end(self, logits: Tensor) -> object:
        match self.how:
            case "tuple":
                return logits, logits
            case "list":
                return [logits]
            case "dict":
                return {"logits": logits}
            case "argmax":
                return logits.argmax(1)
            case "rounded":
                return logits.round().long()
            case "detached":
                return logits.detach()
            case "no_grad":
                with torch.no_grad():
                    return self.last(self.first(logits[:, :3]))
            case "last":
                return logits.permute(0, 2, 3, 1)
            case "half":
                return logits[..., ::2, ::2]
            case "strided":
                return F.avg_pool2d(logits, 3, 3)
            case "two":
                return torch.cat((logits, logits))
            case "one more":
                return torch.cat((logits, logits[:, :1]), 1)
            case "exit":
                raise SystemExit(3)
            case "raise":
                raise ValueError("my own message")
            case "assert":
                raise AssertionError
            case "softmax":
                return logits.softmax(1)
            case "sigmoid":
                return logits.sigmoid()
            case "log_softmax":
                return logits.log_softmax(1)
            case "relu":
                return (logits / 100).relu()
        return logits


def build(num_classes: int, how: str) -> nn.Module:
    return Own(num_classes, how)


build_plain = partial(build, how="plain")
RUN_ANYWHERE = ("plain", "index", "item", "branch", "to device")
MIX_DEVICES = (
    *("tensor attribute", "array attribute", "global", "numpy", "zeros", "pad", "where", "grid"),
    "new weights",
)
ENDS = ("softmax", "sigmoid", "log_softmax", "relu")


def spec_of(how: str) -> ModelSpec:
    return ModelSpec.model_validate({"arch": f"{__name__}:build", "how": how})


def tried(how: str) -> None:
    spec = spec_of(how)
    geometry = find_geometry(build(6, how), spec, 6)
    assert (geometry.multiple, geometry.minimum) == (1, 32)
    facts = complexity(spec, 6, (32, 40), geometry, 2)
    assert facts.num_params == sum(p.numel() for p in build(6, how).parameters()) == 278
    assert facts.num_unreached == 0
    assert facts.gmacs >= 32 * 40 * (8 * 27 + 6 * 8) / 1e9


@pytest.mark.parametrize("how", [*RUN_ANYWHERE, *MIX_DEVICES, *ENDS])
def test_common_forms_run(how: str) -> None:
    tried(how)
    model, _ = build_model(spec_of(how), 6)
    logits = model.train()(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert isinstance(logits, Tensor)
    logits.sum().backward()


@pytest.mark.parametrize("how", RUN_ANYWHERE)
def test_forms_that_run_on_a_gpu_too(how: str) -> None:
    require_one_device(spec_of(how), 6, (32, 32))


@pytest.mark.parametrize("how", MIX_DEVICES)
def test_forms_that_a_gpu_refuses_are_named_with_their_line(how: str) -> None:
    message = (
        r"build does not run on a GPU: it mixes tensors of two devices; make tensors with "
        r"device=x\.device, and register constants with register_buffer "
        r"\(test_own_networks\.py:\d+: image = "
    )
    with pytest.raises(UserError, match=message):
        require_one_device(spec_of(how), 6, (32, 32))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("tuple", r"build returns a tuple of 2; expected one tensor of logits \(N, K, H, W\)\."),
        ("list", "build returns a list of 1; expected one tensor"),
        ("dict", "build returns a dict with logits; expected one tensor"),
        ("argmax", r"build returns \(1, 129, 161\); expected logits .*, without argmax\."),
        ("rounded", r"build returns torch\.int64; expected logits of a float type"),
        (
            "last",
            r"build returns \(1, 129, 161, 6\), which seems to be \(N, H, W, K\); expected .* as "
            r"permute\(0, 3, 1, 2\) makes them\.",
        ),
        ("half", "build returns logits of 65x81 for images of 129x161; both need the same size"),
        ("strided", "build returns logits of 43x53 for images of 129x161; both need the same"),
        ("two", "build returns 2 predictions for 1 images"),
        ("one more", "build returns 7 classes, but the dataset has 6"),
        (
            "exit",
            r"build fails: it ends the program \(SystemExit 3\) \(test_own_networks.py:\d+: r",
        ),
        ("raise", r"build fails: my own message \(test_own_networks.py:\d+: raise "),
        ("assert", r"build fails: AssertionError \(test_own_networks.py:\d+: raise Assert"),
    ],
)
def test_the_message_begins_with_the_cause(how: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{__name__}:{message}") as error:
        tried(how)
    assert "No image size works" not in str(error.value)


@pytest.mark.parametrize("how", ["detached", "no_grad"])
def test_logits_need_a_gradient_in_training(how: str) -> None:
    message = f"^In training, {__name__}:build returns logits without a gradient; forward must not"
    with pytest.raises(UserError, match=message):
        tried(how)


@pytest.mark.parametrize("how", [*ENDS, "plain"])
def test_probabilities_are_recognised(how: str) -> None:
    spec = spec_of(how)
    torch.manual_seed(0)
    geometry = find_geometry(build(6, how), spec, 6)
    assert gives_probabilities(spec, 6, geometry) == (how in ("softmax", "sigmoid"))


class Constant(nn.Module):
    """A head that starts with one value everywhere, as some papers begin."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 1)
        nn.init.zeros_(self.conv.weight)
        nn.init.constant_(self.conv.bias, 0.01)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(image)


def test_a_constant_head_gives_no_probabilities() -> None:
    spec = ModelSpec.model_validate({"arch": f"{__name__}:Constant"})
    assert not gives_probabilities(spec, 6, find_geometry(Constant(6), spec, 6))


def fails(num_classes: int, error: str) -> nn.Module:
    if error == "import":
        import a_package_that_is_not_there  # noqa: F401
    raise {
        "not implemented": NotImplementedError("no such backbone"),
        "plain": Exception("bad config"),
        "division": ZeroDivisionError("division by zero"),
    }[error]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("import", "does not build: ModuleNotFoundError: No module named 'a_package"),
        ("not implemented", "does not build: NotImplementedError: no such backbone"),
        ("plain", "does not build: bad config"),
        ("division", "does not build: ZeroDivisionError: division by zero"),
    ],
)
def test_any_error_of_a_builder_is_the_users(error: str, message: str) -> None:
    spec = ModelSpec.model_validate({"arch": f"{__name__}:fails", "error": error})
    with pytest.raises(UserError, match=message):
        build_model(spec, 6)


class WithoutForward(nn.Module):
    """A network that someone forgot to finish."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 1)


def test_a_network_without_forward_is_named() -> None:
    spec = ModelSpec.model_validate({"arch": f"{__name__}:WithoutForward"})
    with pytest.raises(UserError, match=r"WithoutForward fails: NotImplementedError.*forward"):
        find_geometry(WithoutForward(6), spec, 6)


class FixedSize(nn.Module):
    """A network that takes one size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(image.flatten(1))


def test_torch_logs_no_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    spec = ModelSpec.model_validate({"arch": f"{__name__}:FixedSize"})
    with pytest.raises(UserError, match="FixedSize fails at"):
        find_geometry(FixedSize(6), spec, 6)
    assert not caplog.records
