"""The methods paragraph of a paper, with citations."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.datasets.registry import find
from bench.errors import UserError
from bench.records.seeds import each_once
from bench.report.formats.latex_letters import escape as escape_latex
from bench.report.formats.latex_letters import needs
from bench.report.formats.markdown import escape as escape_markdown
from bench.report.paper import citations
from bench.report.protocol import data_of
from bench.report.rows import each
from bench.suite.case import Case
from bench.suite.columns import COLUMNS
from bench.suite.loss import CrossEntropy, Dice, Focal, terms
from bench.suite.recipe import Recipe
from bench.suite.schema import size_text
from bench.text import enumerated, plural

RULES = {
    "inverse": "inverse class frequency",
    "one_minus_frequency": "1 - class frequency",
    "enet": "1 / ln(1.02 + class frequency)",
    "median_frequency": "median class frequency / class frequency",
}


@dataclass(frozen=True)
class Cite:
    """References for the text before it, by BibTeX key."""

    keys: tuple[str, ...]


Part = str | Cite

METHODS = {  # of inference, by their names in a protocol
    "whole": "whole images",
    "sliding": "sliding windows",
    "centre crop": "centre crops",
}


def methods(cases: Sequence[Case], rows: pd.DataFrame) -> list[Part]:
    """Write the methods paragraph for some cases.

    Args:
        cases: with scores; one seed of each is enough.
        rows: of `bench.records.frame.load`, of these cases and all their seeds.
    """
    parts: list[Part] = [*_data(cases), *_models(cases)]
    recipes = list(_by_recipe(cases))
    num_models = len({case.label for case in cases})
    for names, recipe, labels in recipes:
        if len(recipes) > 1:
            noun = "recipe" if len(names) == 1 else "recipes"
            who = "all models" if 1 < len(labels) == num_models else enumerated(labels)
            subject = f"With the {noun} {enumerated(names)}, {who}"
        else:
            subject = "It" if len(labels) == 1 else "All models"
        verb = "is" if len(labels) == 1 else "are"
        parts.append(f"{subject} {verb} {_training(recipe)} ")
    return [*parts, *_scores(rows), *_seeds(each_once(rows)), _machine(rows)]


def _data(cases: Sequence[Case]) -> list[Part]:
    is_trained = any(case.recipe.epochs for case in cases)
    parts: list[Part] = ["We train and evaluate on " if is_trained else "We evaluate on "]
    datasets = {_title(case): case.dataset for case in cases}
    for number, (title, spec) in enumerate(datasets.items()):
        parts.append(f"{_separator(number, len(datasets))}{title}")
        keys = citations.dataset_keys(spec.name, spec.options)
        parts += [Cite(keys)] if keys else []
    return [*parts, ". "]


def _title(case: Case) -> str:
    """Return the title of a case's dataset, or its key if its class cannot be imported."""
    try:
        return getattr(find(case.dataset.name), "title", case.dataset_name)
    except UserError:
        return case.dataset_name


def _models(cases: Sequence[Case]) -> list[Part]:
    models = {(case.label, _built(case)): case for case in cases}
    parts: list[Part] = [
        f"We compare {len(models)} models: " if len(models) > 1 else "The model is "
    ]
    for number, ((label, _), case) in enumerate(models.items()):
        keys = citations.keys(case.model)
        parts.append(f"{_separator(number, len(models))}{label}")
        parts += [Cite(keys)] if keys else []
        parts.append(f" ({_built(case)})")
    return [*parts, ". "]


def _built(case: Case) -> str:
    spec = case.model
    encoder = f", encoder {spec.encoder}" if spec.encoder else ""
    if case.parent is not None:
        part = "" if case.parent.part == "all" else f"{case.parent.part} "
        parent = "__".join(case.parent.name.split("__")[1:-2])
        also = (
            f" and {spec.weights.part} weights from {spec.weights.source}" if spec.weights else ""
        )
        return f"{spec.arch}{encoder}, {part}weights from {parent}{also}"
    if spec.weights is None:
        start = "weights from its builder" if ":" in spec.arch else "randomly initialised"
        return f"{spec.arch}{encoder}, {start}"
    part = "encoder " if spec.weights.part == "encoder" else ""
    return f"{spec.arch}{encoder}, {part}weights from {spec.weights.source.rpartition('/')[2]}"


def _by_recipe(cases: Sequence[Case]) -> Iterable[tuple[list[str], Recipe, list[str]]]:
    """List each recipe with its names and the models trained with it."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.recipe.model_dump_json(), []).append(case)
    for same in found.values():
        names = list(dict.fromkeys(case.recipe_name for case in same))
        yield names, same[0].recipe, list(dict.fromkeys(case.label for case in same))


def _training(recipe: Recipe) -> str:
    """Describe a recipe: the end of a sentence about its models, and more sentences."""
    if recipe.epochs == 0:
        return "evaluated without training."
    optimizer = recipe.optimizer
    settings = [f"learning rate {optimizer.lr:g}"]
    if recipe.encoder_lr != 1:
        settings.append(f"{recipe.encoder_lr:g} times that for the encoder")
    if optimizer.name == "sgd":
        settings.append(f"momentum {optimizer.momentum:g}")
    if optimizer.weight_decay:
        only = " except on biases and normalisation layers" if recipe.decay == "weights" else ""
        settings.append(f"weight decay {optimizer.weight_decay:g}{only}")
    if getattr(optimizer, "amsgrad", False):
        settings.append("AMSGrad")
    name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[optimizer.name]
    schedule = {
        "constant": "a constant learning rate",
        "poly": f"the poly schedule (power {getattr(recipe.schedule, 'power', 0):g})",
        "cosine": "cosine annealing",
        "step": f"step decay (factor {getattr(recipe.schedule, 'gamma', 0):g} every "
        f"{getattr(recipe.schedule, 'every', 0)} epochs)",
    }[recipe.schedule.name]
    if recipe.warmup is not None:
        schedule += f" with a linear warm-up of {plural(recipe.warmup.steps, 'step')}"
    sentences = [
        f"trained for {recipe.length} with {name} ({', '.join(settings)}) and {schedule}, on "
        f"batches of {recipe.batch_size} images {_resized(size_text(recipe.size))}.",
        f"{_augmentation(recipe)}; the loss is {_loss(recipe)}.",
    ]
    if recipe.clip_grad is not None:
        sentences.append(f"Gradients are clipped to a norm of {recipe.clip_grad:g}.")
    if recipe.freeze_encoder:
        sentences.append("The encoder is frozen.")
    if recipe.selects:
        sentences.append(_selection(recipe))
    return " ".join(sentences)


def _resized(size: str) -> str:
    """Describe what a size of `size_text` does to images."""
    if size == "as stored":
        return "at their original size"
    side, found, pixels = size.partition(" side ")
    return f"resized to {f'a {side} side of {pixels}' if found else size} pixels"


def _augmentation(recipe: Recipe) -> str:
    names = [next(iter(one)) for one in recipe.augment]
    texts = [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower() for name in names]
    if not texts:
        return "No data augmentation is used"
    return f"The augmentation{' is' if len(texts) == 1 else 's are'} {enumerated(texts)}"


def _selection(recipe: Recipe) -> str:
    """Describe which epoch is kept, and when training stops early."""
    by = COLUMNS[recipe.select_by].header
    on = "on the model-selection split"
    rule = f"epoch with the best {by} {on}" if recipe.checkpoint == "best" else "last epoch"
    if recipe.patience is None:
        return f"We keep the {rule}."
    better = "improvement" if recipe.checkpoint == "best" else f"a better {by} {on}"
    return f"We keep the {rule} and stop after {recipe.patience} epochs without {better}."


def _loss(recipe: Recipe) -> str:
    words = []
    for term in terms(recipe.loss):
        text = {CrossEntropy: "cross-entropy", Focal: "focal loss", Dice: "Dice loss"}[type(term)]
        if isinstance(term, Focal):
            text += f" (gamma {term.gamma:g})"
        if isinstance(term, CrossEntropy) and term.label_smoothing:
            text += f" with label smoothing {term.label_smoothing:g}"
        weights = getattr(term, "class_weights", None)
        if weights not in (None, "none"):
            rule = RULES[weights] if isinstance(weights, str) else "fixed numbers"
            text += f" with classes weighted by {rule}"
        words.append(text if term.weight == 1 else f"{term.weight:g} times {text}")
    return " plus ".join(words)


def _scores(rows: pd.DataFrame) -> list[Part]:
    """Describe what scores are computed on; what all evaluations share is said once."""
    scored = rows[rows["evaluation"].notna()].drop_duplicates("protocol")
    if not len(scored):
        return []
    data, inference = [], []
    for _, row in each(scored):
        protocol = json.loads(row["protocol"])
        data.append(
            f"The {row['evaluation']} scores are computed on {data_of(protocol)} "
            f"({row['num_images']:.0f} images), over {protocol['classes']} classes with void "
            f"{protocol['void']}. "
        )
        inference.append(_inference(protocol))
    convention = json.loads(scored.iloc[0]["protocol"])["miou"]
    miou = f"Mean IoU is computed from a single confusion matrix ({convention}). "
    if len(set(inference)) == 1:
        return [*data, inference[0], miou]
    return [*(text for pair in zip(data, inference, strict=True) for text in pair), miou]


def _inference(protocol: Mapping[str, Any]) -> str:
    """Describe how images become predictions, and at which size these are scored."""
    method = protocol["method"]
    for name, words in METHODS.items():
        if method.startswith(name):
            method = words + method.removeprefix(name)
    stored = protocol["score_at"] == "stored"
    size = "the resolution of the stored masks" if stored else "the size of the input"
    return (
        f"Images are {_resized(protocol['size'])} and processed as {method}; predictions are "
        f"scored at {size}. "
    )


def _seeds(rows: pd.DataFrame) -> list[Part]:
    seeds = sorted(set(rows["seed"]))
    if len(seeds) == 1:
        return [f"All results are from a single seed ({seeds[0]}). "]
    same = ["entry"] if "entry" in rows else ["dataset", "model", "recipe"]
    of_models = rows.groupby(same)["seed"]
    if len({tuple(sorted(set(one))) for _, one in of_models}) > 1:
        return ["We report means over the seeds of each model; their number differs by model. "]
    shown = enumerated([str(seed) for seed in seeds])
    return [f"We report means and standard deviations over seeds {shown}. "]


def _machine(rows: pd.DataFrame) -> str:
    machines = " and ".join(
        f"{machine} ({precision})"
        for machine, precision in rows[["machine", "trained_in"]].drop_duplicates().to_numpy()
    )
    software = " or ".join(
        text.replace(", ", " and ") for text in dict.fromkeys(map(str, rows["software"]))
    )
    return f"All experiments ran on {machines}, with {software}."


def _separator(number: int, num: int) -> str:
    """Return what stands before an item of a list of `num` items: "a, b and c"."""
    if number == 0:
        return ""
    return " and " if number == num - 1 else ", "


def as_markdown(parts: Iterable[Part]) -> str:
    """Write the paragraph in Markdown, with Pandoc citations."""
    text = "".join(
        f" [{'; '.join(f'@{key}' for key in part.keys)}]"
        if isinstance(part, Cite)
        else _spaced(escape_markdown, part)
        for part in parts
    )
    return f"{text.strip()}\n"


def as_latex(parts: Iterable[Part]) -> str:
    r"""Write the paragraph in LaTeX, with \cite."""
    text = "".join(
        f"~\\cite{{{','.join(part.keys)}}}" if isinstance(part, Cite) else _spaced(_breakable, part)
        for part in parts
    )
    other = needs([text])[0]
    preamble = f"{other} for some letters\n" if "XeLaTeX" in other else ""
    body = f"{{\\sloppy\n{text.strip()}\n\\par}}\n"
    return f"% \\cite refers to references.bib\n{preamble}{body}"


def _breakable(text: str) -> str:
    """Escape a text and allow line breaks in long names."""
    escaped = escape_latex(text)
    return escaped.replace("/", "/\\allowbreak{}").replace("\\_", "\\_\\allowbreak{}")


def _spaced(escape: Any, text: str) -> str:
    """Escape a part and keep the spaces at both ends."""
    before = " " if text[:1] == " " else ""
    after = " " if text[-1:] == " " else ""
    return f"{before}{escape(text)}{after}"
