"""Training curves for papers: loss and mIoU over epochs, for one model or for all."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from bench.machine.files import write_atomically
from bench.machine.fonts import FIRST, Fonts, fonts_for
from bench.report.paper.curve_data import SERIES, Curve


@dataclass(frozen=True)
class Quantity:
    """How a series of a history is drawn: title, axis, and the factor to the unit of the axis."""

    title: str
    axis: str
    factor: float


QUANTITIES = {
    "loss": Quantity("Training loss", "Loss", 1),
    "select_loss": Quantity("Validation loss", "Loss", 1),
    "train_miou": Quantity("Training mIoU", "mIoU (%)", 100),
    "select_miou": Quantity("Validation mIoU", "mIoU (%)", 100),
}
assert tuple(QUANTITIES) == SERIES
DPI = 200
RC: Mapping[Any, Any] = {
    "font.family": FIRST,
    "font.size": 8,
    "axes.titlesize": 8.5,
    "figure.titlesize": 9,
    "figure.dpi": DPI,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "legend.frameon": False,
    "legend.borderpad": 0.1,
    "legend.borderaxespad": 0.2,
    "legend.handlelength": 3.2,
    "legend.columnspacing": 1.4,
    "figure.constrained_layout.w_pad": 0.05,
    "figure.constrained_layout.h_pad": 0.05,
    "text.parse_math": False,  # dollar signs in a name are not mathematics
    "pdf.fonttype": 42,  # TrueType: publishers reject Type 3
}
# Okabe and Ito (2008) without their yellow, which is too light for a line on white. Neighbours in
# the list differ in lightness. 7, 5 and 8 are pairwise coprime: 35 models differ in colour and
# dashes, and 40 in dashes and marker, which remain visible in greyscale.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#CC79A7", "#009E73")
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 1.6), (1.2, 1.2), (6, 1.6, 1.2, 1.6), (2.6, 1.2))
MARKERS = {"o": 4.2, "s": 3.8, "^": 4.6, "D": 3.8, "v": 4.6, "P": 5.4, "X": 5.4, "*": 7}  # points
BAND = 0.15
SEEDS_NOTE = "Min–max over seeds"
NOT_MEASURED = "not measured"
MOST_MARKERS = 6
OVERLAY_WIDTH, MODEL_WIDTH, PANEL_HEIGHT = 6.5, 5.5, 1.85  # inches
GRIDS = ((1, 1), (1, 1), (1, 2), (1, 3), (2, 2))  # rows and columns by the number of panels
MOST_LEGEND_COLUMNS, LEGEND_MARGIN, TITLE_LINE = 4, 0.1, 0.16  # inches
LEGEND_LETTERS, TITLE_LETTERS = 24, 70
BREAK_AFTER = " -_/+,;:.|"
UNSTAMPED: dict[str, dict[str, None]] = {  # no date, and no version of matplotlib
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclass(frozen=True)
class Style:
    """What distinguishes one line from another, with and without colour."""

    colour: str
    dashes: tuple[float, ...]
    marker: str


TRAINING = Style("#E69F00", (4, 1.6), "s")
VALIDATION = Style("#0072B2", (), "o")


def model_figure(curve: Curve) -> Figure:
    """Draw loss and mIoU of one model side by side, each for training and validation."""
    with _own_rc(fonts_of([curve])):
        figure = Figure(layout="constrained")
        figure.suptitle("\n".join(_wrapped(curve.label, TITLE_LETTERS)))
        sides = {"Training": TRAINING, "Validation": VALIDATION}
        panels = (("loss", "select_loss"), ("train_miou", "select_miou"))
        for axes, names in zip(figure.subplots(1, 2), panels, strict=True):
            for index, (name, style) in enumerate(zip(names, sides.values(), strict=True)):
                _draw(axes, curve, name, style, index / len(sides))
            _finish(axes, names[0], [curve])
            if not any(_is_measured(curve, name) for name in names):
                _say_not_measured(axes)
        legend = [(text, _handle(style)) for text, style in sides.items()]
        _fit(figure, MODEL_WIDTH, 1, legend + _note_on_seeds([curve]))
    return figure


def overlay_figure(curves: Sequence[Curve]) -> Figure:
    """Draw all models together, with one panel per quantity that any of them measured."""
    with _own_rc(fonts_of(curves)):
        figure = Figure(layout="constrained")
        names = [n for n in QUANTITIES if any(_is_measured(curve, n) for curve in curves)]
        num_rows, num_columns = GRIDS[len(names)]
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        for name, axes in zip(names, grid.flat, strict=False):
            for index, curve in enumerate(curves):
                _draw(axes, curve, name, style_of(index), index / len(curves))
            _finish(axes, name, curves)
            axes.set_title(QUANTITIES[name].title)
        if not names:
            _say_not_measured(grid[0, 0])
            grid[0, 0].set_axis_off()
        legend = [
            ("\n".join(_wrapped(curve.label, LEGEND_LETTERS)), _handle(style_of(index)))
            for index, curve in enumerate(curves)
        ]
        _fit(figure, OVERLAY_WIDTH, num_rows, legend + _note_on_seeds(curves))
    return figure


def save(figure: Figure, file: Path) -> None:
    """Write a figure as PNG or PDF, by suffix; the same histories give the same bytes.

    Raises:
        CannotWrite: if the file cannot be written.
    """
    kind = file.suffix.lower().removeprefix(".")
    stamps = UNSTAMPED[kind]

    def write(beside: Path) -> None:
        with _own_rc():
            figure.savefig(beside, format=kind, dpi=DPI, metadata=stamps)

    write_atomically(file, write, sync=False)


def style_of(index: int) -> Style:
    """Return the style of a model, by its position among those drawn together."""
    marker = list(MARKERS)[index % len(MARKERS)]
    return Style(COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)], marker)


@contextmanager
def _own_rc(fonts: Fonts | None = None) -> Iterator[None]:
    """Draw with our settings only, whatever the user's matplotlibrc says."""
    families = []
    for file in fonts.files[1:] if fonts is not None else ():
        fontManager.addfont(file)
        families.append(FontProperties(fname=file).get_name())
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        matplotlib.rcParams["font.family"] = [FIRST, *families]
        yield


def fonts_of(curves: Iterable[Curve]) -> Fonts:
    """Return the fonts that have the letters of all labels."""
    return fonts_for(curve.label for curve in curves)


def _is_measured(curve: Curve, name: str) -> bool:
    return not all(map(math.isnan, curve.series[name].mean))


def _draw(axes: Axes, curve: Curve, name: str, style: Style, shift: float) -> None:
    """Draw a line through the measured epochs, with markers and a band over the seeds.

    Args:
        shift: 0..1, how far the first marker is moved, so that markers do not hide each other.
    """
    spread, factor = curve.series[name], QUANTITIES[name].factor
    table = np.array([curve.epochs, spread.mean, spread.low, spread.high], dtype=float)
    epochs, mean, low, high = table[:, ~np.isnan(table[1])]
    every = max(math.ceil(len(epochs) / MOST_MARKERS), 1)
    if curve.num_seeds > 1 and len(epochs):
        axes.fill_between(
            epochs, low * factor, high * factor, color=style.colour, alpha=BAND, linewidth=0
        )
    line = _handle(style)
    line.set_data(epochs, mean * factor)
    line.set_markevery((int(shift * every), every))
    axes.add_line(line)
    axes.autoscale_view()


def _handle(style: Style) -> Line2D:
    """Return a line without data; its markers have a white edge, to stand out at crossings."""
    return Line2D(
        [],
        [],
        color=style.colour,
        linestyle=(0, style.dashes) if style.dashes else "-",
        marker=style.marker,
        markersize=MARKERS[style.marker],
        markeredgecolor="white",
        markeredgewidth=0.4,
    )


def _finish(axes: Axes, name: str, curves: Sequence[Curve]) -> None:
    """Label the axes; epochs are whole numbers, with the same range in all panels."""
    axes.set_xlabel("Epoch")
    axes.set_ylabel(QUANTITIES[name].axis)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10), integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 2.5, 5, 10)))
    epochs = [epoch for curve in curves for epoch in curve.epochs] or [1]
    margin = max(0.03 * (max(epochs) - min(epochs)), 0.5)
    axes.set_xlim(min(epochs) - margin, max(epochs) + margin)


def _say_not_measured(axes: Axes) -> None:
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.text(0.5, 0.5, NOT_MEASURED, transform=axes.transAxes, ha="center", va="center")


def _note_on_seeds(curves: Sequence[Curve]) -> list[tuple[str, Artist]]:
    """Return the legend entry for the bands, if there are any."""
    several = any(curve.num_seeds > 1 for curve in curves)
    return [(SEEDS_NOTE, Patch(color="#000000", alpha=BAND, linewidth=0))] if several else []


def _fit(figure: Figure, width: float, num_rows: int, legend: Sequence[tuple[str, Artist]]) -> None:
    """Put the legend below the panels and make the figure high enough for everything."""
    figure.set_size_inches(width, PANEL_HEIGHT * num_rows)
    FigureCanvasAgg(figure)  # needed to measure text
    height = PANEL_HEIGHT * num_rows
    for most in range(MOST_LEGEND_COLUMNS, 0, -1) if legend else ():
        made = _legend(figure, legend, most)
        box = made.get_window_extent()
        if box.width <= (width - 2 * LEGEND_MARGIN) * figure.dpi or most == 1:
            height += box.height / figure.dpi
            break
        made.remove()
    title = figure.get_suptitle()
    height += TITLE_LINE * len(title.splitlines())
    figure.set_size_inches(width, height)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # keep this layout: the same in both formats and on every save


def _legend(figure: Figure, entries: Sequence[tuple[str, Artist]], most: int) -> Legend:
    num_columns = math.ceil(len(entries) / math.ceil(len(entries) / most))
    handles, places = [handle for _, handle in entries], [str(i) for i in range(len(entries))]
    legend = figure.legend(handles, places, loc="outside lower center", ncols=num_columns)
    for text, (label, _) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(label)  # set afterwards: matplotlib hides labels that begin with _
    return legend


def _wrapped(label: str, most: int) -> list[str]:
    """Break a label into lines, after a space or punctuation if possible."""
    rest = fonts_for([label]).drawable(" ".join(label.split()))
    lines = []
    while len(rest) > most:
        at = max(rest.rfind(sign, most // 2, most) for sign in BREAK_AFTER) + 1 or most
        lines.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return [*lines, rest]
