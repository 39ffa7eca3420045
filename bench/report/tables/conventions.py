"""The same predictions scored under different conventions, with the majority-class row."""

import math
from dataclasses import replace

import pandas as pd

from bench.report.group import Group
from bench.report.majority_class import majority_class_row
from bench.report.protocol import card_of
from bench.report.rows import each, figure, names
from bench.report.table import Cell, Footnotes, Header, Table, Text
from bench.suite.columns import CONVENTIONS

OFFICIAL = ("miou", "pixel_accuracy")
HEADERS = {  # title and group, short enough for a page
    "miou": Header("official", "mIoU (%)"),
    "miou_absent_0": Header("absent as 0", "mIoU (%)"),
    "miou_no_background": Header("no background", "mIoU (%)"),
    "miou_no_unlabeled": Header("no unlabeled", "mIoU (%)"),
    "miou_void_background": Header("void as backgr.", "mIoU (%)"),
    "miou_image": Header("of images", "mIoU (%)"),
    "miou_image_absent_0_void_background": Header("of images*", "mIoU (%)"),
    "miou_batch": Header("of batches", "mIoU (%)"),
    "miou_batch_void_background": Header("of batches**", "mIoU (%)"),
    "pixel_accuracy": Header("official", "Pixel acc. (%)"),
    "pixel_accuracy_void_background": Header("void as backgr.", "Pixel acc. (%)"),
}
EXPLAINED = (
    "All columns score the same predictions; the official scores are those in the summary. Absent "
    "as 0: a class in neither truth nor prediction counts as 0 instead of being left out. Void as "
    "background: void pixels count as background, so any other prediction there is wrong. Of "
    "images, of batches: mIoU per image or per batch (the recipe's batch size), then the mean.",
    "* Also absent as 0 and void as background. ** Also void as background.",
)


def conventions(group: Group) -> list[Table]:
    """Make one table per protocol of each reported evaluation."""
    return [
        _table(group, evaluation, data, rows)
        for evaluation in group.reported
        for data, rows in group.protocols(evaluation)
    ]


def _table(group: Group, evaluation: str, data: str, rows: pd.DataFrame) -> Table:
    columns = [name for name in HEADERS if name in OFFICIAL or rows[name].notna().any()]
    footnotes = Footnotes()
    card, own = card_of(rows, footnotes)
    body: list[list[Cell]] = [
        [Text(name, own[index]), *(replace(figure(row, c), spread=math.nan) for c in columns)]
        for name, (index, row) in zip(names(rows, group.choice.by), each(rows), strict=True)
    ]
    majority = []
    if group.choice.by != "model":
        majority = [majority_class_row(each(rows.iloc[:1])[0][1], columns)]
    starred = "miou_image_absent_0_void_background" in columns
    over_seeds = ["Means over seeds."] if (rows["num_seeds"] > 1).any() else []
    return Table(
        "conventions",
        group.name("conventions", evaluation),
        group.caption(f"The same predictions under different conventions: {data}"),
        [Header(group.header), *(HEADERS[column] for column in columns)],
        [*body, *majority],
        card=group.card(card),
        notes=[*(EXPLAINED if starred else EXPLAINED[:1]), *over_seeds],
        footnotes=footnotes.texts,
        rules=frozenset({len(body)} if majority else ()),
    )


assert set(HEADERS) == {*OFFICIAL, *CONVENTIONS}
