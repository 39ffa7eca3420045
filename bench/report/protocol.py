"""The protocol of a table: what its rows share as a card, and differences as footnotes."""

import json
from collections.abc import Hashable, Mapping, Sequence
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
    """Describe the protocol of a row: a text per term."""
    protocol = json.loads(row["protocol"])
    stored = protocol["score_at"] == "stored"
    fingerprint = str(protocol["fingerprint"])[:FINGERPRINT_DIGITS]
    trained = f"{row['train_split']}, {row['num_train']:.0f} images"
    return {
        "data": f"{data_of(protocol)}, {row['num_images']:.0f} images (fingerprint {fingerprint})",
        "trained on": "nothing" if row["epochs"] == 0 else trained,
        "labels": f"{protocol['classes']} classes, void {protocol['void']}",
        "input": f"{protocol['size']}, {protocol['method']}",
        "scored at": "mask resolution" if stored else "input size",
        "checkpoint": "none" if row["epochs"] == 0 else str(protocol["checkpoint"]),
        "mIoU": f"{protocol['miou']} (scores version {row['scores_version']:.0f})",
        "classes averaged": f"{row['num_averaged']:.0f}",
    }


def data_of(protocol: dict[str, Any]) -> str:
    """Name the dataset, the split and the limit on its images."""
    limit = "" if protocol["limit"] is None else f", limited to {protocol['limit']}"
    return f"{protocol['dataset']}, {protocol['split']}{limit}"


def card_of(
    rows: pd.DataFrame, footnotes: Footnotes
) -> tuple[list[tuple[str, str]], dict[Any, tuple[int, ...]]]:
    """Summarise the protocols of rows.

    Returns:
        The card: terms with the text that most rows share. And the footnotes of each row, by its
        index, that say how it differs from the card.
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
    """Merge the cards of several evaluations; a term that differs names its evaluation."""
    card = []
    for term in dict.fromkeys(term for one in cards.values() for term in one):
        texts = {key: one[term] for key, one in cards.items() if term in one}
        if len(set(texts.values())) == 1 and len(texts) == len(cards):
            card.append((term, next(iter(texts.values()))))
        else:
            card += [(f"{term} ({key})", text) for key, text in texts.items()]
    return card


def mark_changed(caption: str, changes: Sequence[str]) -> str:
    """Mark a caption if --set or --limit changed the suite."""
    return f"{caption} (with changed settings)" if changes else caption


def changed_term(changes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the changed settings as a term of a card."""
    return [("changed settings", ", ".join(changes))] if changes else []


def changed_note(changes: Sequence[str]) -> list[str]:
    """Return the changed settings as a note, for tables without a card."""
    return [f"Changed settings: {', '.join(changes)}."] if changes else []
