"""How a table shows an operation of torch: as a layer, or as a follower of one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.report.table import EMPTY

FOLLOWERS = {  # by the first letters of torch's name of the operation
    "relu": "ReLU",
    "hardtanh": "ReLU6",
    "leaky_relu": "LeakyReLU",
    "prelu_kernel": "PReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softmax": "softmax",
    "native_batch_norm": "BN",
    "native_layer_norm": "LN",
    "native_group_norm": "GN",
}
DROPOUT = "dropout"


@dataclass(frozen=True)
class Value:
    """A tensor that descends from the image; all views of one storage share a key."""

    key: int
    shape: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Return C of maps (N, C, H, W), vectors (N, C) and tokens (N, L, C); 1 for a scalar."""
        return self.shape[1] if len(self.shape) in (2, 4) else (1, *self.shape)[-1]


@dataclass(frozen=True)
class Layer:
    """A row without its channels; `short` names an operation that has no module of its own."""

    type: str
    short: str
    kernel: str = EMPTY
    stride: str = EMPTY
    padding: str = EMPTY
    dilation: str = EMPTY
    output_padding: str = ""
    weighted: bool = False


Reader = Callable[[Mapping[str, Any], tuple[Value, ...], Value], Layer | None]


def _convolution(args: Mapping[str, Any], inputs: tuple[Value, ...], out: Value) -> Layer:
    groups, transposed = args["groups"], args["transposed"]
    kind = "deconv" if transposed else "conv"
    if groups > 1:
        depthwise = groups == inputs[0].channels
        kind = f"depthwise {kind}" if depthwise else f"{kind}, {groups} groups"
    return Layer(
        kind,
        "conv",
        kernel="x".join(map(str, args["weight"].shape[2:])),
        stride=_axes(args["stride"]),
        padding=_axes(args["padding"]),
        dilation=_axes(args["dilation"]),
        output_padding=_axes(args["output_padding"]) if any(args["output_padding"]) else "",
        weighted=True,
    )


def _pool(kind: str) -> Reader:
    def read(args: Mapping[str, Any], inputs: tuple[Value, ...], out: Value) -> Layer:
        kernel = _pair(args["kernel_size"])
        return Layer(
            f"{kind}-pool",
            "pool",
            kernel="x".join(map(str, kernel)),
            stride=_axes(_pair(args["stride"] or kernel)),
            padding=_axes(_pair(args["padding"])),
        )

    return read


def _adaptive_pool(kind: str) -> Reader:
    def read(args: Mapping[str, Any], inputs: tuple[Value, ...], out: Value) -> Layer:
        bins = "x".join(map(str, out.shape[2:]))
        return Layer(f"{kind}-pool", "pool", kernel="global" if bins == "1x1" else f"to {bins}")

    return read


def _mean(args: Mapping[str, Any], inputs: tuple[Value, ...], out: Value) -> Layer | None:
    dims = sorted(dim % 4 for dim in args.get("dim") or ())
    is_pool = len(inputs[0].shape) == 4 and dims == [2, 3]
    return Layer("avg-pool", "pool", kernel="global") if is_pool else None


def _resize(kind: str, short: str = "upsample") -> Reader:
    def read(args: Mapping[str, Any], inputs: tuple[Value, ...], out: Value) -> Layer | None:
        if out.shape == inputs[0].shape:
            return None
        return Layer(kind, short, stride=stride_of(inputs[0], out))

    return read


def _pad(args: Mapping[str, Any], inputs: tuple[Value, ...], out: Value) -> Layer | None:
    if out.shape == inputs[0].shape:
        return None
    if out.shape[2:] == inputs[0].shape[2:]:
        return Layer("zero channels", "pad")
    return Layer("padding", "pad", padding=_axes(args.get("pad") or args["padding"]))


def _join(kind: str, short: str) -> Reader:
    def read(args: Mapping[str, Any], inputs: tuple[Value, ...], out: Value) -> Layer | None:
        return Layer(kind, short) if len(inputs) > 1 else None

    return read


def _total(args: Mapping[str, Any], inputs: tuple[Value, ...], out: Value) -> Layer | None:
    is_of_stack = len(inputs[0].shape) == 5 and len(out.shape) == 4
    return Layer("add", "add") if is_of_stack else None


def _matmul(args: Mapping[str, Any], inputs: tuple[Value, ...], out: Value) -> Layer:
    if len(inputs) > 1:
        return Layer("matmul", "matmul")
    return Layer("linear", "linear", weighted=True)


READERS: dict[str, Reader] = {
    "convolution": _convolution,
    "max_pool2d": _pool("max"),
    "max_pool2d_with_indices": _pool("max"),
    "avg_pool2d": _pool("avg"),
    "adaptive_max_pool2d": _adaptive_pool("max"),
    "adaptive_avg_pool2d": _adaptive_pool("avg"),
    "mean": _mean,
    "max_unpool2d": _resize("max-unpool", "unpool"),
    "pixel_shuffle": _resize("pixel shuffle", "shuffle"),
    "upsample_nearest2d": _resize("nearest"),
    "upsample_nearest_exact2d": _resize("nearest"),
    "upsample_bilinear2d": _resize("bilinear"),
    "upsample_bilinear2d_aa": _resize("bilinear"),
    "upsample_bicubic2d": _resize("bicubic"),
    "constant_pad_nd": _pad,
    "reflection_pad2d": _pad,
    "replication_pad2d": _pad,
    "cat": _join("concat", "cat"),
    "add": _join("add", "add"),
    "sum": _total,
    "mul": _join("multiply", "mul"),
    "mm": _matmul,
    "bmm": _matmul,
    "addmm": _matmul,
    "baddbmm": _matmul,
}


def _pair(value: Sequence[int] | int) -> Sequence[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _axes(values: Iterable[object]) -> str:
    """Write one number if all axes are equal, otherwise one number per axis: 2, (2, 1)."""
    texts = [str(value) for value in values]
    return texts[0] if len(set(texts)) == 1 else f"({', '.join(texts)})"


def stride_of(x: Value, out: Value) -> str:
    """Write input size divided by output size: 2, 1/2, (2, 1); EMPTY if it is not a stride."""
    if len(x.shape) != 4 or len(out.shape) != 4:
        return EMPTY
    ratios = []
    for before, after in zip(x.shape[2:], out.shape[2:], strict=True):
        if before % after and after % before:
            return EMPTY
        ratios.append(str(before // after) if before >= after else f"1/{after // before}")
    return _axes(ratios)
