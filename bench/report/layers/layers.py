"""Layer tables of a network, as papers print them, made by running the network.

The same rule applies to every network. A table has one row for each operation that changes the
channels or the size, or joins feature maps, in the order of execution. What follows a layer
(activations, BatchNorm, dropout) is listed in the last column. A module class that defines its own
forward and that the network runs in several places is a block: each use is one row, and each kind
of the block has a separate table. An encoder from a library is one row. All other modules only
provide names.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from bench.errors import UserError
from bench.models.geometry import declared
from bench.models.networks import RUN_ERRORS, needs_values
from bench.models.probing import without_values
from bench.report.layers.rows import Reading, Row
from bench.report.layers.trace import trace
from bench.report.table import EMPTY, Cell, Header, Table, Text
from bench.suite.model import ModelSpec
from bench.suite.validation_errors import describe
from bench.text import first_line
from custom_models import ARCHITECTURES

SIZE = 512  # pixels per side; a multiple of every stride
HEADERS = ("Layer", "Type", "In", "Out", "Kernel", "Stride", "Padding", "Dilation", "Activation")
HOW_TO_READ = (
    "Activation: what follows the layer, in order of execution (BN: BatchNorm). The kernels of a "
    "block are those of its convolutions. The stride of a block or a resize is its input size "
    "divided by its output size."
)


def layer_tables(
    arch: str, options: Mapping[str, Any], num_classes: int = 21, size: int = SIZE
) -> list[Table]:
    """Make the layer tables of a network: one of the network, then one for each kind of block.

    Args:
        arch: as in a suite: custom/…, smp/…, torchvision/…, timm/…, package.module:attribute.
        options: the model's other settings, as in a suite; no weights are loaded.
        size: of the image, in pixels per side; padded to a size that the network accepts.

    Raises:
        UserError: if a name or an option is unknown or invalid, or the network fails to run.
    """
    try:
        spec = ModelSpec.model_validate({"arch": arch, **options}, context={"folder": Path()})
    except ValidationError as error:
        faults = describe(error, ModelSpec)
        raise UserError(" ".join(fault.message for fault in faults)) from error

    def run(net: nn.Module, device: torch.device) -> list[Table]:
        geometry = declared(net)
        side = geometry.padded(size) if geometry else size
        try:
            call = trace(net, torch.zeros(1, 3, side, side, device=device))
        except RUN_ERRORS as error:
            if needs_values(error):
                raise
            raise UserError(f"{arch} fails at {side}x{side}: {first_line(error)}") from error
        num_params = sum(parameter.numel() for parameter in net.parameters())
        return _tables(Reading(call, net, spec), spec, num_classes, num_params)

    return without_values(spec, num_classes, run)


def _tables(reading: Reading, spec: ModelSpec, num_classes: int, num_params: int) -> list[Table]:
    """Make the table of the network, then those of its blocks in order of first use."""
    kind, _, name = spec.arch.partition("/")
    known = ARCHITECTURES.get(name) if kind == "custom" else None
    title = known.title if known else spec.arch
    options = ({} if spec.encoder is None else {"encoder": spec.encoder}) | spec.options
    chosen = "".join(f", {key}={value}" for key, value in options.items())
    caption = f"{title}{chosen}: {num_classes} classes, {num_params:,} parameters"
    notes = [HOW_TO_READ, *_notes(reading.rows), *(known.slips if known else ())]
    tables = [_table(reading, spec.arch, caption, reading.rows, notes)]
    waiting = [(row, name, "") for row, name in _blocks(reading.rows)]
    done: set[str] = set()
    for row, name, within in waiting:  # grows in the loop: blocks can contain blocks
        label = reading.label(row)
        if label in done:
            continue
        done.add(label)
        rates = list(reading.rates[row.layer.type, row.number])
        notes = [f"Dropout differs by block: {', '.join(rates)}."] if len(rates) > 1 else []
        caption = f"{title}: {label}, as in {name}{within}"
        notes = [*_notes(row.inner), *notes]
        tables.append(_table(reading, f"{spec.arch} {label}", caption, row.inner, notes))
        waiting += [(inner, path, f" of {label}") for inner, path in _blocks(row.inner)]
    return tables


def _blocks(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    return [(row, name) for row, name in zip(rows, _names(rows), strict=True) if row.number]


def _notes(rows: Sequence[Row]) -> list[str]:
    """Describe what has no column."""
    found: dict[str, list[str]] = defaultdict(list)
    for row, name in zip(rows, _names(rows), strict=True):
        if row.layer.output_padding:
            found[row.layer.output_padding].append(name)
    notes = [f"Output padding {padding}: {', '.join(names)}." for padding, names in found.items()]
    if any(row.times > 1 for row in rows):
        notes.append("x2, x3, …: the layer runs that many times, with the same weights.")
    return notes


def _table(
    reading: Reading, name: str, caption: str, rows: Sequence[Row], notes: Sequence[str]
) -> Table:
    body: list[list[Cell]] = []
    for row, path in zip(rows, _names(rows), strict=True):
        layer = row.layer
        shown = path if row.times == 1 else f"{path} x{row.times}"
        sizes = [layer.kernel, layer.stride, layer.padding, layer.dilation]
        then = ", ".join(row.then) or EMPTY
        texts = (shown, reading.label(row), row.inputs, row.out, *sizes, then)
        body.append([Text(text) for text in texts])
    slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{name} layers").strip("-").lower()
    headers = [Header(title) for title in HEADERS]
    return Table("layers", slug, caption, headers, body, notes=list(notes))


def _names(rows: Sequence[Row]) -> list[str]:
    """Name rows after their modules, as briefly as possible; rows of one module get numbers.

    `head.0` becomes `head` if no other row is in `head`. A prefix that all rows share is removed.
    """
    count = Counter(row.path for row in rows)
    taken, names = set(count), []
    for row in rows:
        name, number = row.path, 0
        while count[row.path] > 1 and name in taken:
            number += 1
            name = f"{row.path}{'' if row.path[-1].isalpha() else '-'}{number}"
        taken.add(name)
        names.append(name)
    short = []
    for name in names:
        parts = name.split(".")
        prefixes = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        alone = (p for p in prefixes if not any(_below(n, p) for n in names if n != name))
        short.append(next(alone))
    while all(re.match(r"\w+\.[A-Za-z_]", name) for name in short) and (
        len({name.partition(".")[0] for name in short}) == 1
    ):
        short = [name.partition(".")[2] for name in short]
    return short


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
