"""What figures rest on: the protocol of rows as a card, and what sets a row apart as a footnote."""

import json
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from bench.report.table import Footnotes

FINGERPRINT_DIGITS = 8
NEEDED = [
    "protocol",
    "num_images",
    "train_split",
    "num_train",
    "epochs",
    "num_averaged",
    "scores_version",
]


def terms(row: Mapping[Hashable, Any]) -> dict[str, str]:
    """Describe the protocol of a row, by term."""
    protocol = json.loads(row["protocol"])
    stored = protocol["score_at"] == "stored"
    fingerprint = str(protocol["fingerprint"])[:FINGERPRINT_DIGITS]
    trained = f"{row['train_split']}, {row['num_train']:.0f} images"
    return {
        "data": f"{data_of(protocol)}, {row['num_images']:.0f} images (fingerprint {fingerprint})",
        "trained on": "nothing" if row["epochs"] == 0 else trained,
        "labels": f"{protocol['classes']} classes, void {protocol['void']}",
        "input": f"{protocol['size']}, {protocol['method']}",
        "scored at": "the masks' own resolution" if stored else "the input's size",
        "checkpoint": str(protocol["checkpoint"]),
        "mIoU": f"{protocol['miou']} (scores version {row['scores_version']:.0f})",
        "classes averaged": f"{row['num_averaged']:.0f}",
    }


def data_of(protocol: dict[str, Any]) -> str:
    """Name dataset and split, and how much of it was used."""
    limit = "" if protocol["limit"] is None else f", limited to {protocol['limit']}"
    return f"{protocol['dataset']}, {protocol['split']}{limit}"


def card_of(
    rows: pd.DataFrame, footnotes: Footnotes
) -> tuple[list[tuple[str, str]], dict[Any, tuple[int, ...]]]:
    """Sum up the protocols of rows.

    Returns:
        What all of them, or most, have in common, by term; and the footnotes of each row, by its
        index, that say what differs there.
    """
    described = {
        index: terms(row)
        for index, row in zip(rows.index, rows[NEEDED].to_dict("records"), strict=True)
    }
    card: list[tuple[str, str]] = []
    differing: dict[Any, list[str]] = {index: [] for index in described}
    for term in next(iter(described.values()), {}):
        texts = pd.Series([one[term] for one in described.values()])
        common = str(texts.mode()[0]) if texts.nunique() > 1 else str(texts[0])
        if 2 * (texts == common).sum() <= len(texts):
            common = ""
        else:
            card.append((term, common))
        for index, one in described.items():
            if one[term] != common:
                differing[index].append(f"{term}: {one[term]}")
    notes: dict[Any, tuple[int, ...]] = {
        index: (footnotes.add(f"{'; '.join(texts)}."),) if texts else ()
        for index, texts in differing.items()
    }
    return card, notes


def together(cards: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    """Say once what several evaluations have in common."""
    card = []
    for term in dict.fromkeys(term for one in cards.values() for term in one):
        texts = {key: one[term] for key, one in cards.items() if term in one}
        if len(set(texts.values())) == 1 and len(texts) == len(cards):
            card.append((term, next(iter(texts.values()))))
        else:
            card += [(f"{term} ({key})", text) for key, text in texts.items()]
    return card
