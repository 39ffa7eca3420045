"""`python -m benchmarks.gpu`, tried on the CPU at its smallest."""

import json
import tarfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.machine.numerics import Numerics
from bench.suite.model import ModelSpec
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.stages import STAGES
from benchmarks.gpu.waiting import waits_per_step
from benchmarks.steps import built, noise, training

CPU = torch.device("cpu")
CAMVID = Path(__file__).parents[2] / "shared" / "data" / "camvid"


class Reading(nn.Module):
    """A network that reads two values back."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image) * float(image.mean() > image.min())


def measured(out: Path, *words: str) -> tuple[int, dict[str, dict]]:
    """Run the command; return its exit code and what each stage found, by its name."""
    code = main(["--toy", "--device", "cpu", "--out", str(out), *words])
    stages = json.loads((out / "gpu.json").read_text())["stages"]
    return code, {stage["name"]: stage for stage in stages}


def test_stages_that_have_something_to_measure_are_measured(tmp_path: Path) -> None:
    code, found = measured(tmp_path, "--only", "cases", "readbacks")
    assert code == 0
    assert found["cases"]["status"] == "skipped"
    assert found["cases"]["reason"] == "no folder of CamVid was given (--camvid)"
    assert found["readbacks"]["status"] == "done"
    rows = found["readbacks"]["rows"]
    assert [(row["precision"], row["readbacks per step"]) for row in rows] == [
        ("fp32", 0),
        ("bf16", 0),
    ]
    text = (tmp_path / "gpu.md").read_text()
    assert "| ENet" in text
    assert "skipped: no folder of CamVid" in text


def test_a_stage_that_fails_is_told_and_the_next_one_follows(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ("--only", "data", "machine", "--camvid", str(tmp_path / "empty"))
    code, found = measured(tmp_path / "out", *words)
    assert code == 1
    assert found["data"]["status"] == "failed"
    assert str(tmp_path / "empty") in found["data"]["reason"]
    assert found["machine"]["status"] == "done"
    assert found["machine"]["rows"][0]["fp32, TFLOP/s"] > 0


def test_a_stage_is_ended_when_its_time_is_over(tmp_path: Path) -> None:
    code, found = measured(tmp_path, "--only", "scoring", "--minutes", "0.1")
    assert code == 0
    assert found["scoring"]["status"] == "ended"
    assert found["scoring"]["seconds"] < 20


def test_values_that_are_read_back_are_counted() -> None:
    numerics = Numerics("cpu", micro_batch=2, fused_optimizer=True)
    batch, spec = noise(2, (8, 8), CPU), ModelSpec(arch=f"{__name__}:Reading")
    run = training(built(spec, numerics, CPU), numerics, batch, CPU, spec.arch)
    assert waits_per_step(run, batch, CPU) == 1


def test_without_a_gpu_the_command_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(SystemExit):
        main([])
    assert "--toy --device cpu" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.shared
def test_every_stage(tmp_path: Path) -> None:
    if not CAMVID.is_dir():
        pytest.skip("needs the real images of ../shared, which are not here")
    code, found = measured(tmp_path, "--camvid", str(CAMVID), "--minutes", "20")
    assert code == 0
    assert {name: stage["status"] for name, stage in found.items()} == dict.fromkeys(STAGES, "done")
    assert all(stage["rows"] for stage in found.values())
    with tarfile.open(tmp_path / "cases.tar.gz") as archive:
        names = archive.getnames()
    assert sum(name.endswith("record.json") for name in names) == 3
    assert not any(name.endswith((".safetensors", ".pt")) for name in names)
