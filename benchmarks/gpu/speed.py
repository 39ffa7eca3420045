"""The machine, and how fast networks train in each precision, memory format and mode."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch

from bench.errors import UserError
from bench.machine.device import describe_device, pick_precision, set_precision
from bench.machine.environment import environment
from bench.machine.numerics import CompileMode, MemoryFormat, Numerics, Precision
from bench.machine.peak import peak_tflops
from bench.models.complexity import complexity
from bench.suite.model import ModelSpec
from benchmarks.gpu.rows import Row, goal
from benchmarks.gpu.settings import Settings
from benchmarks.paired import alternate, ratio
from benchmarks.steps import NUM_CLASSES, Steps, built, noise, training

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp16")
PLAIN = "fp32"
FAST = "bf16, channels_last"
EAGER: dict[str, tuple[Precision, MemoryFormat]] = {
    PLAIN: ("fp32", "contiguous"),
    "tf32": ("tf32", "contiguous"),
    "bf16": ("bf16", "contiguous"),
    FAST: ("bf16", "channels_last"),
}
COMPILED: dict[str, CompileMode] = {"compiled": "default", "CUDA graphs": "reduce-overhead"}
CONVOLUTIONAL = ("U-Net R34", "PSPNet R50", "R2U-Net", "DeepLabv3 R50")
LARGE = ("PSPNet R50", "R2U-Net", "DeepLabv3 R50")
MOST_STEPS = 50  # of a round


def machine(given: Settings) -> Iterator[Row]:
    """Name the machine, and what a large matrix product reaches on it in each precision."""
    device = torch.device(given.device)
    facts = dict(environment()) | describe_device(device)
    yield {
        "device": facts.get("gpu") or facts["cpu"],
        "cores": facts["threads"],
        "python": facts["python"],
        "torch": torch.__version__,
        "cuda": facts.get("cuda"),
        "cudnn": facts.get("cudnn"),
    } | {f"{precision}, TFLOP/s": _peak(precision, device) for precision in PRECISIONS}


def _peak(precision: Precision, device: torch.device) -> float | None:
    try:
        set_precision(pick_precision(precision, device))
    except UserError:
        return None
    return round(peak_tflops(device, precision), 2)


def fast_against_plain(given: Settings) -> Iterator[Row]:
    """Time training steps in each precision and memory format."""
    ways = {name: numerics_of(given, *how) for name, how in EAGER.items()}
    for network in given.networks:
        yield from _timed(given, network, ways)


def compiled(given: Settings) -> Iterator[Row]:
    """Time compiled training steps, with and without CUDA graphs."""
    if given.is_toy:
        from bench.models import compiling

        compiling.BACKEND = "eager"  # inductor takes minutes
    for network in given.networks:
        for name, mode in COMPILED.items():
            ways = {way: numerics_of(given, *EAGER[way]) for way in (PLAIN, FAST)}
            ways[f"{FAST}, {name}"] = replace(ways[FAST], compile=mode)
            yield from _timed(given, network, ways)


def _timed(given: Settings, network: str, ways: Mapping[str, Numerics]) -> Iterator[Row]:
    """Time the ways of training a network in turn; a way that fails has a row that says why."""
    device = torch.device(given.device)
    spec = ModelSpec.model_validate(given.networks[network])
    batch, arms, nums = noise(given.batch_size, given.size, device), {}, {}
    for way, numerics in ways.items():
        try:
            run, nums[way] = prepared(given, spec, numerics)
        except (UserError, RuntimeError) as error:
            yield {"network": network, "way": way, "outcome": str(error).partition("\n")[0]}
            continue
        arms[way] = partial(run, [batch] * nums[way], nums[way])
    seconds = alternate(arms, given.rounds)
    each = {way: [s / nums[way] for s in times] for way, times in seconds.items()}
    model = built(spec, Numerics(), torch.device("cpu"))
    counted = complexity(spec, NUM_CLASSES, given.size, model.geometry, given.batch_size)
    for way, times in each.items():
        rate = given.batch_size / sorted(times)[len(times) // 2]
        row: Row = {"network": network, "way": way, "images/s": round(rate, 1)}
        if PLAIN in each and way != PLAIN:
            found = ratio(each[PLAIN], times)
            row["times faster"] = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
            row |= goal(_times_faster(network, way), found.value)
        precision = ways[way].precision
        set_precision(precision)
        tflops = (counted.train_gflops or 0.0) * rate / 1e3
        mfu = tflops / peak_tflops(device, precision)
        row |= {"TFLOP/s": round(tflops, 3), "MFU": round(mfu, 3)}
        if network in LARGE and way == FAST:
            row |= {"MFU goal": 0.30, "MFU reached": mfu >= 0.30}
        yield row


def _times_faster(network: str, way: str) -> float | None:
    """Return how many times as fast as eager fp32 a way should be."""
    if network == "ENet" and way.endswith("CUDA graphs"):
        return 3.0
    return 2.0 if network in CONVOLUTIONAL and way == FAST else None


def numerics_of(given: Settings, precision: Precision, memory_format: MemoryFormat) -> Numerics:
    """Return the numerics of training steps, with everything on that a GPU's cases have on."""
    device = torch.device(given.device)
    return Numerics(
        device.type,
        precision,
        micro_batch=given.batch_size,
        memory_format=memory_format,
        cudnn_benchmark=device.type == "cuda",
        fused_optimizer=True,
    )


def prepared(given: Settings, spec: ModelSpec, numerics: Numerics) -> tuple[Steps, int]:
    """Return a function that trains a network, and how many of its steps last one round."""
    device = torch.device(given.device)
    pick_precision(numerics.precision, device)
    batch = noise(given.batch_size, given.size, device)
    run = training(built(spec, numerics, device), numerics, batch, device, spec.arch)
    run([batch] * 2, 2)  # warm-up
    start = time.perf_counter()
    run([batch], 1)
    once = time.perf_counter() - start
    return run, max(1, min(MOST_STEPS, round(given.round_s / once)))
