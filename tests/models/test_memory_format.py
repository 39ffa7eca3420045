"""Networks with the channels of a pixel side by side in memory."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.models.memory_format import takes_channels_last
from bench.models.networks import build_network
from bench.models.probing import find_geometry
from bench.models.segmenter import build_model
from bench.suite.load import load
from bench.suite.model import ModelSpec

SUITE = load(Path(__file__).parents[2] / "suites" / "camvid_all.yaml").suite
QUICK = ("enet", "erfnet", "fcn", "smp-unet")  # the others are slow
FEW = 6  # convolutions that may leave the format


class Views(nn.Module):
    """A network that depends on the order of the axes in memory."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.conv(image)
        return logits.view(len(image), -1).view(logits.shape)


def plain(num_classes: int) -> nn.Module:
    return nn.Conv2d(3, num_classes, 3, padding=1)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SUITE.models]
)
def test_networks_stay_in_channels_last(name: str) -> None:
    spec = SUITE.models[name].model_copy(update={"weights": None})
    net = build_network(spec, 11).eval()
    side = find_geometry(net, spec, 11).padded(64)
    net = net.to(memory_format=torch.channels_last)
    left: list[str] = []

    def note(conv: nn.Module, inputs: object, out: Tensor) -> None:
        if not out.is_contiguous(memory_format=torch.channels_last):
            left.append(str(conv))

    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for conv in convs:
        conv.register_forward_hook(note)
    image = torch.zeros(2, 3, side, side)
    with torch.no_grad():
        net(image.contiguous(memory_format=torch.channels_last))
    assert len(convs) >= 3
    assert len(left) <= FEW, left


def test_users_networks_are_tried() -> None:
    for build, takes in (("plain", True), ("Views", False)):
        spec = ModelSpec.model_validate({"arch": f"{__name__}:{build}"})
        assert takes_channels_last(spec, 6) is takes


def test_weights_and_images_change_their_layout_and_nothing_else() -> None:
    spec = ModelSpec.model_validate({"arch": "custom/enet"})
    model, _ = build_model(spec, 6)
    state = {key: value.clone() for key, value in model.net.state_dict().items()}
    image = torch.randint(0, 256, (2, 3, 40, 48), dtype=torch.uint8)
    with torch.inference_mode():
        before = model.eval()(image)
        after = model.lay_out("channels_last")(image)
    assert torch.allclose(before, after, atol=1e-5)
    assert all(torch.equal(value, state[key]) for key, value in model.net.state_dict().items())
    weights = [p for p in model.net.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
