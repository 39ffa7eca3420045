"""The paragraph of a paper that says how its figures were made, with citations."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.datasets.registry import find
from bench.report.formats.latex import escape as escape_latex
from bench.report.formats.markdown import escape as escape_markdown
from bench.report.paper import citations
from bench.report.protocol import terms as protocol_terms
from bench.report.rows import each
from bench.suite.case import Case
from bench.suite.loss import CrossEntropy, Dice, Focal, terms
from bench.suite.recipe import Recipe
from bench.suite.schema import size_text

RULES = {
    "inverse": "inverse class frequency",
    "one_minus_frequency": "1 - class frequency",
    "enet": "1 / ln(1.02 + class frequency)",
    "median_frequency": "median class frequency / class frequency",
}


@dataclass(frozen=True)
class Cite:
    """Works that the text before refers to, by BibTeX key."""

    keys: tuple[str, ...]


Part = str | Cite


def methods(cases: Sequence[Case], rows: pd.DataFrame) -> list[Part]:
    """Write the paragraph of some cases.

    Args:
        cases: that have scores; of several seeds one is enough.
        rows: of `bench.frame.load`, of these cases and all their seeds.
    """
    parts: list[Part] = [*_data(cases), *_models(cases)]
    recipes = list(_by_recipe(cases))
    num_models = len({case.label for case in cases})
    for name, recipe, labels in recipes:
        who = "all models" if 1 < len(labels) == num_models else _listed(labels)
        by = f"By the recipe {name}, {who}" if len(recipes) > 1 else who.capitalize()
        if len(recipes) == 1 and len(labels) == 1:
            by = "It"
        verb = "is" if len(labels) == 1 else "are"
        parts.append(f"{by} {verb} {_training(recipe)}. ")
    return [*parts, *_scores(rows), *_seeds(rows), _machine(rows)]


def _data(cases: Sequence[Case]) -> list[Part]:
    parts: list[Part] = ["We train and evaluate on "]
    datasets = {getattr(find(c.dataset.name), "title", c.dataset_name): c.dataset for c in cases}
    for number, (title, spec) in enumerate(datasets.items()):
        parts.append(f"{', ' if number else ''}{title}")
        keys = citations.dataset_keys(spec.name, spec.options)
        parts += [Cite(keys)] if keys else []
    return [*parts, ". "]


def _models(cases: Sequence[Case]) -> list[Part]:
    models = {case.label: case for case in cases}
    parts: list[Part] = [f"The {len(models)} models are " if len(models) > 1 else "The model is "]
    for number, (label, case) in enumerate(models.items()):
        keys = citations.keys(case.model)
        parts.append(f"{', ' if number else ''}{label}")
        parts += [Cite(keys)] if keys else []
        parts.append(f" ({_built(case)})")
    return [*parts, ". "]


def _built(case: Case) -> str:
    spec = case.model
    encoder = f", encoder {spec.encoder}" if spec.encoder else ""
    if case.parent is not None:
        part = "" if case.parent.part == "all" else f"{case.parent.part} "
        return f"{spec.arch}{encoder}, {part}from the trained {case.parent.name.split('__')[1]}"
    if spec.weights is None:
        return f"{spec.arch}{encoder}, from random weights"
    what = "encoder" if spec.weights.part == "encoder" else "all"
    return f"{spec.arch}{encoder}, {what} from {spec.weights.source.rpartition('/')[2]} weights"


def _by_recipe(cases: Sequence[Case]) -> Iterable[tuple[str, Recipe, list[str]]]:
    """List each recipe with the models that were trained by it."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.recipe.model_dump_json(), []).append(case)
    for same in found.values():
        names = _listed(list(dict.fromkeys(case.recipe_name for case in same)))
        yield names, same[0].recipe, list(dict.fromkeys(case.label for case in same))


def _training(recipe: Recipe) -> str:
    """Say how a recipe trains, in the words of papers."""
    if recipe.epochs == 0:
        return "scored with the weights given, without training"
    length = f"{recipe.epochs} epochs" if recipe.steps is None else f"{recipe.steps} steps"
    optimizer = recipe.optimizer
    settings = [f"learning rate {optimizer.lr:g}"]
    if optimizer.name == "sgd":
        settings.append(f"momentum {optimizer.momentum:g}")
    if optimizer.weight_decay:
        settings.append(f"weight decay {optimizer.weight_decay:g}")
    if recipe.encoder_lr != 1:
        settings.append(f"times {recipe.encoder_lr:g} for the encoder")
    name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[optimizer.name]
    schedule = {
        "constant": "a constant rate",
        "poly": f"the poly schedule (power {getattr(recipe.schedule, 'power', 0):g})",
        "cosine": "cosine annealing",
        "step": f"the rate times {getattr(recipe.schedule, 'gamma', 0):g} every "
        f"{getattr(recipe.schedule, 'every', 0)} epochs",
    }[recipe.schedule.name]
    size = "as stored" if recipe.size is None else f"resized to {size_text(recipe.size)}"
    augment = ", ".join(
        re.sub(r"(?<!^)(?=[A-Z])", " ", next(iter(one))).lower() for one in recipe.augment
    )
    parts = [
        f"trained for {length} with {name} ({', '.join(settings)}), {schedule}",
        f"batches of {recipe.batch_size} images {size}",
        f"augmentation by {augment}" if augment else "no augmentation",
        _loss(recipe),
    ]
    if recipe.freeze_encoder:
        parts.append("a frozen encoder")
    if recipe.checkpoint == "best" or recipe.patience is not None:
        rule = "the best" if recipe.checkpoint == "best" else "the last"
        stop = f", stopped after {recipe.patience} epochs without a better one"
        parts.append(
            f"{rule} epoch by {recipe.select_by}{stop if recipe.patience is not None else ''}"
        )
    return "; ".join(parts)


def _loss(recipe: Recipe) -> str:
    words = []
    for term in terms(recipe.loss):
        text = {CrossEntropy: "cross-entropy", Focal: "focal loss", Dice: "Dice loss"}[type(term)]
        weights = getattr(term, "class_weights", None)
        if weights is not None:
            rule = RULES[weights] if isinstance(weights, str) else "given numbers"
            text += f" with classes weighted by {rule}"
        words.append(text if term.weight == 1 else f"{term.weight:g} times {text}")
    return " plus ".join(words)


def _scores(rows: pd.DataFrame) -> list[Part]:
    """Say what scores are of, a sentence for each protocol."""
    sentences: list[Part] = []
    scored = rows[rows["evaluation"].notna()].drop_duplicates("protocol")
    for _, row in each(scored):
        about = protocol_terms(row)
        data = re.sub(r" \(fingerprint \w+\)", "", about["data"])
        sentences.append(
            f"Scores ({row['evaluation']}) are of {data}, input {about['input']}, compared at "
            f"{about['scored at']}, {about['labels']}. "
        )
    if len(scored):
        convention = json.loads(scored.iloc[0]["protocol"])["miou"]
        sentences.append(f"Mean IoU is of one confusion matrix: {convention}. ")
    return sentences


def _seeds(rows: pd.DataFrame) -> list[Part]:
    seeds = sorted(set(rows["seed"]))
    if len(seeds) == 1:
        return [f"Each model is trained once (seed {seeds[0]}). "]
    shown = ", ".join(map(str, seeds))
    return [f"Figures are means and standard deviations over seeds {shown}. "]


def _machine(rows: pd.DataFrame) -> str:
    machines = " and ".join(
        f"{machine} ({precision})"
        for machine, precision in rows[["machine", "trained_in"]].drop_duplicates().to_numpy()
    )
    software = " or ".join(dict.fromkeys(map(str, rows["software"])))
    return f"Everything ran on {machines} with {software}."


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def as_markdown(parts: Iterable[Part]) -> str:
    """Write the paragraph with Pandoc's citations."""
    text = "".join(
        f" [{'; '.join(f'@{key}' for key in part.keys)}]"
        if isinstance(part, Cite)
        else _spaced(escape_markdown, part)
        for part in parts
    )
    return f"{text.strip()}\n"


def as_latex(parts: Iterable[Part]) -> str:
    r"""Write the paragraph with \cite."""
    text = "".join(
        f"~\\cite{{{','.join(part.keys)}}}" if isinstance(part, Cite) else _spaced(_breakable, part)
        for part in parts
    )
    return f"% \\cite refers to references.bib\n{{\\sloppy\n{text.strip()}\n\\par}}\n"


def _breakable(text: str) -> str:
    """Escape a text, whose long names may be broken."""
    escaped = escape_latex(text)
    return escaped.replace("/", "/\\allowbreak{}").replace("\\_", "\\_\\allowbreak{}")


def _spaced(escape: Any, text: str) -> str:
    """Escape a part, but keep the space at its ends."""
    before = " " if text[:1] == " " else ""
    after = " " if text[-1:] == " " else ""
    return f"{before}{escape(text)}{after}"
