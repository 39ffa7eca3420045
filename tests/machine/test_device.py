import os
import random
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.errors import UserError
from bench.machine import device as device_file
from bench.machine.device import (
    algorithms,
    as_it_runs,
    pick_device,
    pick_precision,
    set_precision,
    visible_gpus,
)
from bench.machine.memory import is_out_of_memory
from bench.machine.numerics import Numerics
from bench.machine.random_state import random_states, seed_everything, set_random_states

CPU = torch.device("cpu")


def test_random_states_go_on_where_they_were(tmp_path) -> None:
    seed_everything(3)
    torch.rand(5), np.random.rand(5), random.random()
    torch.save(random_states(CPU), tmp_path / "states.pt")
    expected = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()
    seed_everything(99)
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True), CPU)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == expected


def test_devices() -> None:
    assert pick_device("cpu") == CPU
    with pytest.raises(UserError, match="No device 'gpu'; this machine has cpu"):
        pick_device("gpu")
    with pytest.raises(UserError, match="No device 'cuda:99'"):
        pick_device("cuda:99")


def test_auto_fails_where_a_gpu_is_visible_but_unusable(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("bench.machine.device._has_nvidia_gpu", lambda: True)
    with pytest.raises(UserError, match="visible, but torch .* cannot use it"):
        pick_device("auto")


def test_precisions_of_the_cpu() -> None:
    assert pick_precision("bf16", CPU) == "bf16"
    for name in ("tf32", "fp16"):
        with pytest.raises(UserError, match=f"Precision '{name}' is not supported on"):
            pick_precision(name, CPU)


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("CUDA error: out of memory", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", True),
        ("Unable to find a valid cuDNN algorithm to run convolution", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", False),
        ("The size of tensor a (3) must match", False),
    ],
)
def test_errors_that_mean_that_memory_ran_out(text: str, is_memory: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) == is_memory


@pytest.fixture
def _settings() -> Iterator[None]:
    """Leave torch's settings as a case would."""
    yield
    set_precision("fp32")


@pytest.mark.usefixtures("_settings")
def test_fp32_is_fp32_whatever_a_module_did() -> None:
    torch.set_float32_matmul_precision("medium")
    for operation in device_file._cuda_operations():
        operation.fp32_precision = "tf32"
    torch.backends.cudnn.benchmark = True
    asked = Numerics("cuda", "fp32")
    assert as_it_runs(asked) == replace(asked, precision="tf32", cudnn_benchmark=True)
    set_precision("fp32")
    assert as_it_runs(asked) == asked
    assert {one.fp32_precision for one in device_file._cuda_operations()} == {"ieee"}
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"  # medium is bf16 on a CPU
    assert not torch.backends.cudnn.allow_tf32  # torch refuses to tell if the two kinds differ
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"
    set_precision("tf32")
    assert as_it_runs(asked).precision == "tf32"
    assert as_it_runs(Numerics("cuda", "bf16")).precision == "bf16"


@pytest.mark.usefixtures("_settings")
def test_one_operation_in_tf32_is_not_fp32() -> None:
    set_precision("fp32")
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    assert as_it_runs(Numerics("cuda", "fp32")).precision == "tf32"


def test_deterministic_needs_its_setting_before_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    message = "CUDA started without CUBLAS_WORKSPACE_CONFIG"
    with pytest.raises(UserError, match=message), algorithms(True):
        pass
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with algorithms(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with algorithms(True):  # it was set in time
        assert torch.are_deterministic_algorithms_enabled()


class Nvml:
    """Stands for pynvml on a machine whose first GPU is divided in two."""

    NVMLError = RuntimeError

    def __init__(self, slices: int) -> None:
        self.slices = slices

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: int) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: int, place: int) -> int:
        if place >= self.slices:
            raise RuntimeError("not found")
        return place

    def nvmlDeviceGetUUID(self, one: int) -> str:
        return f"MIG-{one}"


@pytest.mark.parametrize(
    ("given", "slices", "count", "names"),
    [
        (None, 0, 2, ["0", "1"]),
        (None, 2, 1, ["MIG-0", "MIG-1"]),  # torch counts one
        ("MIG-a,MIG-b,MIG-c", 7, 1, ["MIG-a", "MIG-b", "MIG-c"]),
        ("3,5,7", 0, 2, ["3", "5"]),
        ("GPU-x,GPU-y", 0, 2, ["GPU-x", "GPU-y"]),
    ],
)
def test_gpus_and_slices(
    monkeypatch: pytest.MonkeyPatch, given: str | None, slices: int, count: int, names: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(slices))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if given is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == names
