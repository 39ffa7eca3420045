"""The self-test passes if all is well, and fails if something is broken."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from bench.cli.app import app
from bench.cli.commands import selftest
from bench.cli.commands.selftest import Check

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "ARCHITECTURES", {"enet": None})
    monkeypatch.setattr(selftest, "OTHERS", ({"arch": "smp/unet", "encoder": "resnet18"},))


def checks() -> dict[str, Check]:
    return {check.name: check for check in selftest.selftest(CPU)}


def test_all_is_well() -> None:
    done = CliRunner().invoke(app, ["selftest", "--device", "cpu"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["ok", "metrics"],
        ["ok", "resume"],
        ["ok", "custom/enet"],
        ["ok", "smp/unet"],
    ]
    assert lines[-1] == "4 of 4 checks passed on cpu."
    assert "weights equal bit for bit" in lines[1]


def test_wrong_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    right = selftest.count_pixels
    monkeypatch.setattr(selftest, "count_pixels", lambda pred, *rest: right(pred * 0, *rest))
    done = CliRunner().invoke(app, ["selftest", "--device", "cpu"])
    assert done.exit_code == 1
    assert "FAIL metrics" in done.output
    assert done.output.splitlines()[-1] == "3 of 4 checks passed on cpu."


def test_a_resume_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    right = selftest.read_weights
    monkeypatch.setattr(
        selftest,
        "read_weights",
        lambda file: {k: v + ("cut" in str(file)) for k, v in right(file).items()},
    )
    check = checks()["resume"]
    assert not check.passed
    assert "of what was trained after a stop" in check.detail


def test_a_loss_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    right = selftest.build_model

    def build(spec: object, num_classes: int) -> object:
        model, facts = right(spec, num_classes)
        if hasattr(model.net, "head"):
            nn.init.constant_(model.net.head.bias, float("nan"))
        return model, facts

    monkeypatch.setattr(selftest, "build_model", build)
    found = checks()
    assert not found["custom/enet"].passed
    assert "the loss is not finite: nan" in found["custom/enet"].detail
    assert found["smp/unet"].passed


def test_a_loss_that_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "LR", 1e3)
    check = checks()["smp/unet"]
    assert not check.passed
    assert "the loss does not fall" in check.detail or "not finite" in check.detail


def test_another_device_is_compared_with_the_cpu() -> None:
    """Test the comparison itself, with the CPU on both sides."""
    torch.manual_seed(0)
    model, _ = selftest.build_model(selftest.ModelSpec(arch="custom/fcn"), 5)
    image, _ = selftest._batch(2)
    assert selftest._agreement(model, image, CPU) == 0

    class Off(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            self.calls = getattr(self, "calls", 0) + 1
            return torch.ones(1) * (1 + 0.01 * self.calls)

    with pytest.raises(selftest.Wrong, match="logits differ from the CPU's"):
        selftest._agreement(Off(), image, CPU)
