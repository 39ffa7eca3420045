"""The commands of `bench data`: get, prepare, check, show and cache."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from tabulate import tabulate

from bench.cli.console import Console
from bench.cli.options import read_roots
from bench.cli.progress import counting, downloading
from bench.datasets.base import Dataset
from bench.datasets.registry import find, open_dataset
from bench.datasets.tools.findings import CheckReport, Finding
from bench.errors import Exit, UserError
from bench.lookup import pick, unknown
from bench.machine.environment import num_cores
from bench.suite import yaml_file
from bench.suite.catalog import is_suite
from bench.suite.load import load
from bench.suite.validation_errors import describe
from bench.text import MOST_SHOWN, name_and_value, plural

COLUMNS = 4  # of a contact sheet


class Drawn(NamedTuple):
    """A file with a contact sheet, and a note on letters that it lacks."""

    file: Path
    note: str


@dataclass(frozen=True)
class Opened:
    """A dataset to look at, and the splits that a suite uses; None for all."""

    dataset: Dataset
    splits: tuple[str, ...] | None = None


def open_targets(target: str, roots: Sequence[str], settings: Sequence[str]) -> list[Opened]:
    """Open a dataset by name, or those of a suite.

    Args:
        roots: "name=path", or only a path if the target is one dataset.
        settings: "key=value" options of a dataset, or changes of a suite.
    """
    if is_suite(target):
        file = load(target, settings)
        suite, by_name = file.suite, read_roots(roots)
        used = (suite.splits.train, suite.splits.select, *(e.split for e in suite.scored.values()))
        splits = tuple(dict.fromkeys(used))
        return [Opened(spec.open(key, by_name), splits) for key, spec in suite.datasets.items()]
    options = _options(target, settings)
    return [Opened(open_dataset(target, target, None, options, read_roots(roots, target)))]


def _options(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """Read key=value settings as the options of a dataset."""
    pairs = (name_and_value(setting, "--set", "partial=true") for setting in settings)
    given = {key: yaml_file.parse_value(text) for key, text in pairs}
    dataset = find(name)
    try:
        return dataset.Options.model_validate(given, context={"folder": Path()}).model_dump()
    except ValidationError as error:
        faults = describe(error, dataset.Options)
        lines = [f"{'.'.join(map(str, fault.path))}: {fault.message}" for fault in faults]
        raise UserError(f"Options of {name} (--set key=value): " + "\n".join(lines)) from error


def get(name: str, root: str | None, console: Console) -> None:
    """Download a dataset, or say where to get it."""
    from bench.datasets.tools.archives import NothingToFetch, archives
    from bench.datasets.tools.download import get as download
    from bench.datasets.tools.download import missing

    try:
        archives(name, Path(root or "PATH"))  # raises if there is nothing to download
        folder = _folder(name, root)
        if not missing(name, folder):
            console.say(f"{name} is already at {folder}.")
            return
        with downloading() as progress:
            download(name, folder, progress)
    except NothingToFetch as nothing:
        console.say(str(nothing))
        return
    console.say(f"{name} is at {folder}. Use it with --root {name}={folder}, and check it with")
    console.say(f"  python -m bench data check {name} --root {folder}")


def _folder(name: str, root: str | None) -> Path:
    """Return where a dataset goes: the given folder, else $BENCH_DATA/<name>."""
    if root is not None:
        return read_roots([root], name).get(name, Path(root))
    if os.environ.get("BENCH_DATA"):
        return Path(os.environ["BENCH_DATA"]) / name
    raise UserError("Give a folder: --root PATH, or the folder of all datasets in $BENCH_DATA.")


def prepare(
    name: str, root: str | None, label_set: str, num_workers: int | None, console: Console
) -> Exit:
    """Draw the masks of IDD from its polygons."""
    from bench.datasets.tools.rasterise import prepare as draw

    if name != "idd":
        raise UserError(f"Only idd needs preparing; {name} is read as it is.")
    workers = num_workers if num_workers is not None else num_cores()
    with counting("masks") as progress:
        done = draw(_folder(name, root), label_set, workers, progress)
    for fault in done.faults:
        console.say(fault)
    console.say(f"{plural(done.made, 'mask')} made, {done.kept} kept, {len(done.faults)} failed.")
    return Exit.NEGATIVE if done.faults else Exit.OK


def check(
    target: str,
    splits: Sequence[str],
    roots: Sequence[str],
    settings: Sequence[str],
    console: Console,
) -> Exit:
    """Read all splits, or some, and print what is wrong."""
    from bench.datasets.tools.check import check as read_all

    found, targets = False, open_targets(target, roots, settings)
    for opened in targets:
        known = {*opened.dataset.splits, *opened.dataset.withheld}
        for split in splits:
            if split not in known:
                raise UserError(f"{opened.dataset.title}: {unknown('split', split, known)}")
    for opened in targets:
        with counting(opened.dataset.name) as progress:
            chosen = tuple(splits) or opened.splits
            report = read_all(opened.dataset, chosen, num_cores(), progress)
        found |= bool(report.findings)
        if console.json_lines:
            console.json(report.as_dict())
        else:
            console.say(_report_text(report, opened.dataset.root))
    return Exit.NEGATIVE if found else Exit.OK


def _report_text(report: CheckReport, root: Path | None) -> str:
    """Return what a check found as text."""
    lines = [report.title + (f" at {root}" if root is not None else ""), ""]
    inside = f"{root}/" if root is not None else "\0"
    total = max(1, sum(int(split.pixels.sum()) for split in report.splits))
    rows = []
    for i, name in enumerate(report.classes):
        pixels = sum(int(split.pixels[i]) for split in report.splits)
        images = [int(split.images[i]) for split in report.splits]
        rows.append([i, name, f"{100 * pixels / total:.2f}", *images])
    void = sum(split.void for split in report.splits)
    rows.append(["", "(void, of all)", f"{100 * void / (total + void):.2f}"])
    heads = [f"{split.name} ({split.num_images})" for split in report.splits]
    lines.append(tabulate(rows, ["", "class", "pixels [%]", *heads], disable_numparse=True))
    lines += ["", *report.notes]
    kinds: dict[str, list[Finding]] = {}
    for finding in report.findings:
        kinds.setdefault(finding.kind, []).append(finding)
    for kind, findings in kinds.items():
        lines.append(f"{kind} ({len(findings)})")
        for finding in findings[:MOST_SHOWN]:
            place = f"{finding.split}: " if finding.split else ""
            lines.append(f"  {place}{finding.message.replace(inside, '')}")
        if findings[MOST_SHOWN:]:
            lines.append(f"  … and {len(findings) - MOST_SHOWN} more (--json lists all)")
    num, num_images = len(report.findings), sum(split.num_images for split in report.splits)
    lines.append(
        f"{num or 'No'} {'finding' if num == 1 else 'findings'} in {plural(num_images, 'image')}."
    )
    return "\n".join(lines)


def show(
    target: str,
    split: str | None,
    num: int,
    out: Path | None,
    roots: Sequence[str],
    settings: Sequence[str],
) -> Drawn:
    """Draw a contact sheet of a dataset as it is stored."""
    from bench.evaluation.drawing import Tile

    opened, *others = open_targets(target, roots, settings)
    if others:
        raise UserError(f"{target} has several datasets; name one, with --suite {target}.")
    dataset, name = opened.dataset, split or "train"
    samples = dataset.samples(name)
    tiles = [Tile(samples[i].id, *dataset.checked(samples[i])) for i in _spread(len(samples), num)]
    rows = [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]
    return _write_sheet(dataset, name, "", rows, out)


def show_augmented(
    target: str,
    suite: str,
    recipe_name: str | None,
    split: str | None,
    num: int,
    seed: int,
    out: Path | None,
    roots: Sequence[str],
    settings: Sequence[str],
) -> Drawn:
    """Draw a contact sheet of images as stored, and as a recipe of a suite augments them."""
    from bench.evaluation.drawing import Tile
    from bench.loading.images import TrainImages
    from bench.runner.validate import load_checked
    from bench.suite.case import open_case_dataset

    cases = load_checked(suite, settings).cases()
    by_dataset = {case.dataset.name: case.dataset_name for case in cases}
    by_dataset |= {case.dataset_name: case.dataset_name for case in cases}
    key = pick("dataset", target, by_dataset)
    by_recipe = {case.recipe_name: case for case in reversed(cases) if case.dataset_name == key}
    chosen = recipe_name or next(c.recipe_name for c in cases if c.dataset_name == key)
    case = pick("recipe", chosen, by_recipe)
    dataset, name = open_case_dataset(case, read_roots(roots, target)), split or case.train_split
    samples = dataset.samples(name)
    images = TrainImages(dataset, samples, case.recipe, seed)
    rows = []
    for i in _spread(len(samples), num):
        row = [Tile(samples[i].id, *dataset.checked(samples[i]))]
        for epoch in range(COLUMNS - 1):
            image, mask = images.finish(images.decode(i), epoch, i)
            title = f"epoch {epoch + 1}, {mask.shape[0]}x{mask.shape[1]}"
            row.append(Tile(title, image, mask))
        rows.append(row)
    return _write_sheet(dataset, name, f", as augmented for {case.name}", rows, out)


def _write_sheet(
    dataset: Dataset, split: str, how: str, rows: Sequence[Sequence[Any]], out: Path | None
) -> Drawn:
    from bench.evaluation.drawing import contact_sheet, save

    heading = f"{dataset.title}, {split}{how}"
    place = out or Path(f"{dataset.name}_{split}.png")
    picture, note = contact_sheet(heading, rows, dataset.labels(dataset.options))
    save(picture, place)
    return Drawn(place, note)


def _spread(total: int, num: int) -> list[int]:
    """Return `num` indices spread evenly over `total`."""
    return sorted({i * total // num for i in range(num)}) if total else []


def cache(console: Console, *, clear: bool) -> None:
    """List the decoded images that are kept, or remove them and all else that can be remade."""
    from bench.loading.cache import clear_cache, entries
    from bench.machine.cache_folder import cache_folder

    if clear:
        num, num_bytes = clear_cache()
        removed = f"{plural(num, 'decoded split')}, {num_bytes / 1e6:.1f} MB"
        console.say(f"Removed {removed}, from {cache_folder()}.")
        return
    found = entries()
    rows = [
        [entry.about, f"{entry.num_bytes / 1e6:.1f}", _ago(entry.used), entry.path.name]
        for entry in reversed(found)
    ]
    if rows:
        console.say(tabulate(rows, ["decoded", "MB", "last used", "key"], disable_numparse=True))
    total = sum(entry.num_bytes for entry in found)
    console.say(f"{plural(len(rows), 'decoded split')}, {total / 1e6:.1f} MB, in {cache_folder()}.")


def _ago(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when)) if when else "never"
