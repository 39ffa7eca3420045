"""Tests that need a CUDA device; skipped without one."""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TINY

from bench.datasets.registry import open_dataset
from bench.evaluation.confusion import count_pixels
from bench.evaluation.inference import predict
from bench.evaluation.setup import Setup
from bench.loading.images import TrainImages
from bench.loading.loader import train_loader
from bench.loading.loading import Loading
from bench.machine.clock import Clock, idle_between, reference_s
from bench.machine.device import (
    algorithms,
    autocast,
    pick_precision,
    set_precision,
    visible_gpus,
)
from bench.machine.numerics import Numerics
from bench.models.segmenter import build_model
from bench.models.weight_files import read_weights
from bench.records.record import read_record
from bench.runner.engines import processes
from bench.runner.plan import plan
from bench.runner.profile import profile_case
from bench.runner.run_suite import run_planned
from bench.runner.task import Options
from bench.runner.validate import check
from bench.suite.evaluation import Evaluation
from bench.suite.expand import expand
from bench.suite.load import load
from bench.suite.loss import CrossEntropy
from bench.suite.model import ModelSpec
from bench.suite.recipe import Recipe
from bench.training.losses import build_loss, mean
from custom_models import ARCHITECTURES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda")


def run(file: Path, out: Path, *settings: str, **options: object) -> Path:
    loaded = load(file, settings)
    cases = expand(loaded.suite)
    checked = check(loaded, cases, {}, need_data=True)
    planned = plan(loaded.suite, cases, out / "tiny", checked)
    [outcome] = run_planned(planned, Options(device="cuda", **options))
    assert outcome.status in ("ok", "interrupted"), outcome.reason
    return planned[0].task.folder


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16", "auto"])
def test_a_case_in_every_precision(
    write_suite: Callable[..., Path], tmp_path: Path, precision: str
) -> None:
    folder = run(write_suite(), tmp_path, f"recipe.precision={precision}", "recipe.accumulate=2")
    record = read_record(folder)
    assert record is not None
    assert record.numerics["device"] == "cuda"
    assert record.numerics["precision"] == pick_precision(precision, CUDA)
    assert record.environment["gpu"]
    assert record.training is not None
    assert record.training.peak_memory_mib is not None
    assert 1 < record.training.peak_memory_mib < 4000
    assert json.loads((folder / "eval" / "val.json").read_text())["scores"]["miou"] > 0


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_interrupted_case_goes_on(
    write_suite: Callable[..., Path], tmp_path: Path, precision: str
) -> None:
    left = iter([False] * 5 + [True])
    file = write_suite(TINY.replace("custom/enet", "smp/unet, encoder: resnet18"))
    setting = f"recipe.precision={precision}"
    folder = run(file, tmp_path / "cut", setting, should_stop=lambda: next(left))
    assert (folder / "last.pt").exists()
    cut = read_weights(run(file, tmp_path / "cut", setting) / "weights.safetensors")
    whole = read_weights(run(file, tmp_path / "whole", setting) / "weights.safetensors")
    for key in cut:
        torch.testing.assert_close(cut[key], whole[key], rtol=0.1, atol=0.02)


def test_counts_are_those_of_the_cpu() -> None:
    pred = torch.randint(0, 21, (3, 64, 65))
    target = torch.randint(0, 21, (3, 64, 65), dtype=torch.uint8)
    target[:, :9] = 255
    on_gpu = count_pixels(pred.to(CUDA), target.to(CUDA), 21)
    assert on_gpu.device.type == "cuda"
    assert torch.equal(on_gpu.cpu(), count_pixels(pred, target, 21))


@pytest.mark.parametrize("arch", ["custom/fcn", "custom/enet"])
def test_logits_agree_with_the_cpu(arch: str) -> None:
    torch.manual_seed(0)
    model, _ = build_model(ModelSpec(arch=arch), 11)
    model.eval()
    image = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        expected = model(image)
        found = model.to(CUDA)(image.to(CUDA)).cpu()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        with autocast(CUDA, "bf16"):
            half = model(image.to(CUDA)).float().cpu()
    assert (half - expected).abs().mean() < 0.05 * expected.abs().mean() + 0.02


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_agrees_with_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    model, _ = build_model(ModelSpec(arch=f"custom/{name}"), 5)
    for parameter in model.parameters():  # scores that start at zero would all be equal
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.01)
    model.eval()
    set_precision("fp32")
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(image)
        found = model.to(CUDA)(image.to(CUDA)).cpu()
    assert (found - expected).abs().max() < 2e-3 * expected.abs().max()


def test_recomputed_activations_give_the_same_training(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    file = write_suite()
    folders = [
        run(file, tmp_path / memory, "recipe.precision=fp32", f"recipe.memory={memory}")
        for memory in ("keep", "checkpoint")
    ]
    kept, again = (read_weights(folder / "weights.safetensors") for folder in folders)
    for key in kept:
        torch.testing.assert_close(again[key], kept[key], rtol=0.1, atol=0.02)


def test_a_profile_of_the_gpu(write_suite: Callable[..., Path]) -> None:
    [case] = expand(load(write_suite()).suite)
    profile = profile_case(case, CUDA)
    assert profile.latency.size == (512, 512)
    assert profile.environment["gpu"]
    assert 0 < profile.latency.p50_ms < 1000


def test_loading_is_measured(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    record = read_record(run(write_suite(), tmp_path))
    assert record is not None
    assert record.loading["images_per_s"] > 1
    assert record.loading["prefetch"] in (2, 4)
    assert 0 <= record.loading["num_workers"] <= 16


@pytest.mark.parametrize("num_workers", [0, 2])
def test_pinned_batches_are_the_same(num_workers: int) -> None:
    shapes = open_dataset("shapes", "shapes", None, {"size": [32, 32], "num_train": 12}, {})
    recipe = Recipe.model_validate({"epochs": 1, "augment": ["flip"]})
    images = TrainImages(shapes, shapes.samples("train"), recipe, seed=0)
    plain, _ = train_loader(images, 4, 0, Loading())
    pinned, _ = train_loader(images, 4, 0, Loading(num_workers, pin_memory=True))
    for one, other in zip(plain, pinned, strict=True):
        assert torch.equal(one[0], other[0].to(CUDA, non_blocking=True).cpu())
        assert torch.equal(one[1], other[1].to(CUDA, non_blocking=True).cpu())


@pytest.mark.parametrize(
    "asked",
    [{"method": "sliding", "crop": [64, 64]}, {"flip": True, "scales": [0.5, 1.0]}],
    ids=["sliding", "views"],
)
def test_ways_of_predicting_agree_with_the_cpu(asked: dict) -> None:
    torch.manual_seed(0)
    model, _ = build_model(ModelSpec(arch="custom/fcn"), 11)
    model.eval()
    torch.backends.cudnn.allow_tf32 = False
    image = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    evaluation = Evaluation.model_validate({"split": "val"} | asked)
    loss = build_loss(CrossEntropy(), 11, CUDA, 0.4)
    here, there = (Setup(torch.device(d), Numerics(d), 11, loss) for d in ("cpu", "cuda"))
    on_cpu = predict(model, image, (48, 64), evaluation, here)
    on_gpu = predict(model.to(CUDA), image.to(CUDA), (48, 64), evaluation, there)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("loss", ["cross_entropy", "[focal, dice]"])
def test_deterministic_cases_are_equal_bit_for_bit(
    write_suite: Callable[..., Path], tmp_path: Path, loss: str
) -> None:
    settings = ("recipe.deterministic=true", f"recipe.loss={loss}", "recipe.epochs=3")
    file, left = write_suite(), iter([False] * 5 + [True])
    whole = read_weights(run(file, tmp_path / "whole", *settings) / "weights.safetensors")
    run(file, tmp_path / "cut", *settings, should_stop=lambda: next(left))
    cut = read_weights(run(file, tmp_path / "cut", *settings) / "weights.safetensors")
    assert all(torch.equal(cut[key], whole[key]) for key in whole)


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 3.0)])
def test_the_deterministic_loss_is_torchs(weights: tuple[float, ...] | None) -> None:
    logits = torch.randn(2, 4, 9, 7)
    target = torch.randint(0, 4, (2, 9, 7))
    target[:, :3] = 255
    found = []
    for device, deterministic in (("cpu", False), ("cuda", True)):
        given = logits.to(device).requires_grad_()
        loss_fn = build_loss(CrossEntropy(class_weights=weights), 4, torch.device(device), 0.4)
        with algorithms(deterministic):
            truth = target.to(device)
            mean(loss_fn.totals(given, truth), loss_fn.weights(truth)).backward()
        assert given.grad is not None
        found.append(given.grad.cpu())
    torch.testing.assert_close(*found)


def test_an_operation_without_a_deterministic_form_is_refused(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    text = TINY.replace("custom/enet", "smp/pspnet, encoder: resnet18")  # adaptive pooling
    loaded = load(write_suite(text), ("recipe.deterministic=true",))
    cases = expand(loaded.suite)
    checked = check(loaded, cases, {}, need_data=True)
    planned = plan(loaded.suite, cases, tmp_path / "tiny", checked)
    [outcome] = run_planned(planned, Options(device="cuda"))
    assert outcome.status == "failed"
    assert "has no deterministic implementation in torch" in str(outcome.reason)


def test_too_little_gpu_memory_halves_what_is_computed_at_once(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    text = TINY.replace("size: [32, 32]", "size: [512, 512]")
    text = text.replace("batch_size: 4", "batch_size: 16")
    text = text.replace("custom/enet", "smp/unet, encoder: resnet34")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(3.0 * 2**30 / total)
    try:
        settings = ("recipe.on_oom=accumulate", "recipe.precision=fp32")
        folder = run(write_suite(text), tmp_path, *settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    record = read_record(folder)
    assert record is not None
    assert record.numerics["micro_batch"] in (1, 2, 4, 8)
    assert record.notes


def test_a_process_for_a_case(write_suite: Callable[..., Path], tmp_path: Path) -> None:
    loaded = load(write_suite())
    cases = expand(loaded.suite)
    checked = check(loaded, cases, {}, need_data=True)
    planned = plan(loaded.suite, cases, tmp_path / "tiny", checked)
    slots = processes.divide(1, CUDA)
    engine = partial(processes.run, slots=slots)
    [outcome] = run_planned(planned, Options(device="cuda"), engine)
    assert outcome.status == "ok", outcome.reason


def test_two_processes_for_a_case_on_one_gpu(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    loaded = load(write_suite())
    cases = expand(loaded.suite)
    checked = check(loaded, cases, {}, need_data=True)
    planned = plan(loaded.suite, cases, tmp_path / "tiny", checked)
    gpu = visible_gpus()[0]
    engine = partial(processes.run, slots=[processes.Slot(gpus=(gpu, gpu), size=2)])
    [outcome] = run_planned(planned, Options(device="cuda"), engine)
    assert outcome.status == "ok", outcome.reason
    record = read_record(planned[0].task.folder)
    assert record is not None
    assert record.numerics["world_size"] == 2


@pytest.mark.parametrize(("fetch_s", "step_s", "wait_s"), [(0.05, 0.0, 0.05), (0.02, 0.1, 0.0)])
def test_the_gpu_waits_only_while_it_has_nothing_to_do(
    fetch_s: float, step_s: float, wait_s: float
) -> None:
    cycles_per_s = 1e9

    def batches() -> Iterator[int]:
        for number in range(8):
            time.sleep(fetch_s)
            yield number

    clock = Clock()
    torch.cuda._sleep(1)
    torch.cuda.synchronize()
    waited = idle_between(batches(), CUDA, clock)
    for _ in waited:
        if step_s:
            torch.cuda._sleep(int(step_s * cycles_per_s))
    torch.cuda.synchronize()
    waited.close()
    first = fetch_s  # before the first step the device is idle
    assert clock.seconds["data_wait"] == pytest.approx(first + 7 * wait_s, rel=0.2, abs=0.02)


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_reference_runs_beside_a_training(deterministic: bool) -> None:
    """It takes time but keeps no memory and draws no random numbers."""
    allocated, drawn = torch.cuda.memory_allocated(), torch.cuda.get_rng_state()
    with algorithms(deterministic):
        assert reference_s(CUDA) > 0
    assert torch.cuda.memory_allocated() == allocated
    assert torch.equal(torch.cuda.get_rng_state(), drawn)
