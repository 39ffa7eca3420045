"""Turn a trace into rows: which modules are blocks, what follows a layer, what runs again."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby

from torch import nn

from bench.report.layers.operations import DROPOUT, Layer, Value, stride_of
from bench.report.layers.trace import Call, Op
from bench.report.table import EMPTY
from bench.suite.model import ModelSpec
from custom_models import ARCHITECTURES

LIBRARIES = ("segmentation_models_pytorch", "timm", "torchvision")


@dataclass
class Row:
    """A row of a table: a layer, or a block with the rows of its own table.

    key: equal for rows that are the same layer: in another round of a loop, or with the same
        weights.
    kernels, dilations: of the convolutions inside.
    number: which kind of its block type it is, from 1; 0 if it is not a block.
    tips: keys of the latest values that this row produced, as far as is known.
    """

    path: str
    layer: Layer
    inputs: str
    out: str
    key: tuple[object, ...]
    kernels: tuple[str, ...] = ()
    dilations: tuple[int, ...] = ()
    then: list[str] = field(default_factory=list)
    times: int = 1
    inner: list["Row"] = field(default_factory=list)
    number: int = 0
    tips: set[int] = field(default_factory=set)


class Reading:
    """The rows of a traced network: finds blocks, followers of layers, and repeated layers."""

    def __init__(self, root: Call, net: nn.Module, spec: ModelSpec) -> None:
        encoder = getattr(net, "encoder", None)
        package = type(encoder).__module__.partition(".")[0]
        self.encoder = encoder if package in LIBRARIES else None
        self.encoder_name = _encoder_name(spec)
        paths: dict[type[nn.Module], set[str]] = defaultdict(set)
        for call in self._composites(root):
            paths[type(call.module)].add(call.path)
        self.blocks = {kind for kind, found in paths.items() if len(found) > 1}
        self._read(root)
        wrappers = {
            name
            for name, kinds in self.kinds.items()
            if len(kinds) > 1 and all(len(kind) == 1 for kind in kinds)
        }
        if wrappers:  # modules that wrap a single layer
            self.blocks = {kind for kind in self.blocks if kind.__name__ not in wrappers}
            self._read(root)

    def _read(self, root: Call) -> None:
        self.kinds: dict[str, list[list[object]]] = defaultdict(list)  # of blocks, by type
        self.rates: dict[tuple[str, int], dict[str, None]] = defaultdict(dict)  # of dropout
        self.rows, _ = self._table(root)

    def _composites(self, call: Call) -> Iterable[Call]:
        for part in call.parts:
            if isinstance(part, Call) and part.module is not self.encoder:
                if _is_composite(part):
                    yield part
                yield from self._composites(part)

    def _table(self, call: Call) -> tuple[list[Row], dict[int, Row]]:
        """Return the rows of a table, and the row that produced each value, by key."""
        rows: list[Row] = []
        made: dict[int, Row] = {}
        self._walk(call, rows, made)
        for row in rows:
            row.path = row.path.removeprefix(call.path).removeprefix(".")
        return _merged(rows), made

    def _walk(self, call: Call, rows: list[Row], made: dict[int, Row]) -> None:
        for part in call.parts:
            if isinstance(part, Op):
                row = _apply(part, rows, made)
            elif part.module is self.encoder and part.inputs and part.outputs:
                row = self._encoder(part)
                rows.append(row)
            elif type(part.module) in self.blocks and _is_composite(part):
                row = self._block(part)
                rows.append(row)
            else:
                self._walk(part, rows, made)
                continue
            if row is not None:
                made.update((value.key, row) for value in part.outputs)

    def _encoder(self, call: Call) -> Row:
        maps = [value for value in call.outputs if len(value.shape) == 4] or call.outputs
        if getattr(call.module, "output_fmt", "NCHW") == "NHWC":
            maps = [Value(v.key, (v.shape[0], v.shape[3], *v.shape[1:3])) for v in maps]
        deepest = min(reversed(maps), key=lambda value: value.shape[-1])
        layer = Layer(
            self.encoder_name, "", stride=stride_of(call.inputs[0], deepest), weighted=True
        )
        return _whole(call, layer, deepest)

    def _block(self, call: Call) -> Row:
        inner, made = self._table(call)
        kernels = tuple(dict.fromkeys(kernel for row in inner for kernel in row.kernels))
        dilations = tuple(dict.fromkeys(d for row in inner for d in row.dilations))
        dilated = ", ".join(str(d) for d in dilations if d > 1)
        layer = Layer(
            type(call.module).__name__,
            "",
            kernel=", ".join(kernels) or EMPTY,
            stride=stride_of(call.inputs[0], call.outputs[0]),
            dilation=dilated or ("1" if dilations else EMPTY),
            weighted=any(True for _ in call.module.parameters()),
        )
        row = _whole(call, layer, call.outputs[0])
        row.inner, row.kernels, row.dilations = inner, kernels, dilations
        last = made.get(call.outputs[0].key)
        row.then = [] if last is None else list(last.then)
        self._number(row)
        return row

    def _number(self, row: Row) -> None:
        """Find which kind of its type a block is, ignoring channels and dropout rates."""
        kind: list[object] = []
        rates: list[str] = []
        for part in row.inner:
            rates += [text.split()[1] for text in part.then if text.startswith(DROPOUT)]
            then = [text for text in part.then if not text.startswith(DROPOUT)]
            kind.append((part.layer.type, part.number, part.layer.kernel, part.times, *then))
        known = self.kinds[row.layer.type]
        if kind not in known:
            known.append(kind)
        row.number = known.index(kind) + 1
        self.rates[row.layer.type, row.number].update(dict.fromkeys(rates or ["none"]))

    def label(self, row: Row) -> str:
        """Return a row's type, with its kind if blocks of this type differ in their layers."""
        several = row.number and len(self.kinds[row.layer.type]) > 1
        return f"{row.layer.type} (kind {row.number})" if several else row.layer.type


def _encoder_name(spec: ModelSpec) -> str:
    kind, _, name = spec.arch.partition("/")
    if kind == "timm":
        return name
    default = ARCHITECTURES[name].options.get("encoder") if kind == "custom" else None
    return spec.encoder or default or "encoder"


def _is_composite(call: Call) -> bool:
    """Check whether a module has children, its own forward, and more than one operation."""
    if type(call.module).forward is nn.Sequential.forward or _is_leaf(call.module):
        return False
    ops = list(_ops(call))
    return len(ops) > 1 and any(op.layer for op in ops) and bool(call.inputs and call.outputs)


def _ops(call: Call) -> Iterable[Op]:
    for part in call.parts:
        if isinstance(part, Call):
            yield from _ops(part)
        elif part.layer is not None or part.follower:
            yield part


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _apply(op: Op, rows: list[Row], made: Mapping[int, Row]) -> Row | None:
    """Add an operation to a table and return the row that produced its outputs."""
    source = next((made[value.key] for value in op.inputs if value.key in made), None)
    continues = source is not None and any(value.key in source.tips for value in op.inputs)
    if op.layer is None and not op.follower:
        if source is not None and continues:
            source.tips.update(value.key for value in op.outputs)
        return source
    if op.layer is None and source is not None and continues:
        source.then.append(op.follower)
        source.tips = {value.key for value in op.outputs}
        return source
    rows.append(_row(op))
    return rows[-1]


def _row(op: Op) -> Row:
    """Make the row of a layer, or of a follower that has no layer before it."""
    layer = op.layer or Layer(op.follower, op.follower.split()[0].lower())
    named = op.module.path != "" and _is_leaf(op.module.module)
    path = op.module.path if named else f"{op.module.path}.{layer.short}".removeprefix(".")
    channels = [value.channels for value in op.inputs]
    inputs, out = str(channels[0]), str(op.outputs[0].channels)
    if layer.short == "cat":
        inputs = _sum(channels)
    elif layer.short in ("add", "mul"):
        inputs = out
    elif layer.short == "matmul":
        inputs = out = EMPTY
    shared: tuple[object, ...] = op.weights if layer.weighted else ()
    key = shared or (op.module.path, layer, *channels)
    row = Row(path, layer, inputs, out, key, tips={op.outputs[0].key})
    if layer.short == "conv":
        row.kernels = (layer.kernel,)
        row.dilations = (max(map(int, re.findall(r"\d+", layer.dilation))),)
    return row


def _whole(call: Call, layer: Layer, out: Value) -> Row:
    """Make the row of a whole module."""
    inputs = ", ".join(str(value.channels) for value in call.inputs)
    return Row(call.path, layer, inputs, str(out.channels), key=(call.path,), tips={out.key})


def _sum(channels: Iterable[int]) -> str:
    """Write a sum, with three or more equal neighbours as a product: 2048 + 4 x 512."""
    texts: list[str] = []
    for count, group in groupby(channels):
        times = len(list(group))
        texts += [f"{times} x {count}"] if times > 2 else [str(count)] * times
    return " + ".join(texts)


def _merged(rows: Iterable[Row]) -> list[Row]:
    """Merge rows that run again with the same weights, and what repeats between them."""
    kept: list[Row] = []
    latest: dict[tuple[object, ...], tuple[int, Row]] = {}
    looped_at = -1
    for at, row in enumerate(rows):
        before, first = latest.get(row.key, (at, row))
        if before < at and (row.layer.weighted or before < looped_at):
            first.times += 1
            looped_at = at if row.layer.weighted else looped_at
        else:
            first = row
            kept.append(row)
        latest[row.key] = (at, first)
    return kept
