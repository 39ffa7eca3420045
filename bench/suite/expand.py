"""Expand a suite into its cases, and filter and order them."""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping

from bench.errors import Fault, Faults
from bench.lookup import unknown
from bench.machine.source_hash import source_hash
from bench.suite.case import (
    DIGITS_OF_A_FOLDER,
    NUMERICS_VERSION,
    Case,
    Names,
    Parent,
    case_name,
)
from bench.suite.model import InitFrom
from bench.suite.recipe import Recipe, change_recipe
from bench.suite.suite import CaseRow, Suite
from bench.text import listed

Drafts = dict[Names, tuple[CaseRow, tuple[str | int, ...]]]  # with the place of each row
LONGEST_NAME = 255  # of a folder
NAMES_SHOWN = 3  # case names are long
IS_GLOB = re.compile(r"__|[*?[]")  # a glob on case names, not the name of a published system


def expand(suite: Suite) -> list[Case]:
    """List the cases of a suite in the order of its file.

    Raises:
        Faults: if a case is given twice, a glob matches no case, no case is left, or an
            `init_from` names no case or forms a cycle.
    """
    drafts: Drafts = {}
    faults = []
    for row, path in _rows(suite):
        for seed in row.seeds if row.seeds is not None else suite.seeds:
            names = (row.dataset, row.model, row.recipe, seed)
            if names in drafts:
                faults.append(Fault(path, f"Case {case_name(names)} is given twice."))
            elif not _excluded(suite, names):
                drafts[names] = row, path
    by_name: dict[str, Names] = {}
    for names, (_, path) in drafts.items():
        if by_name.setdefault(case_name(names), names) != names:
            text = f"Two cases would have the name {case_name(names)}; use keys without __."
            faults.append(Fault(path, text))
    if not drafts and not faults:
        faults.append(Fault(("exclude",), "No case is left; check exclude and cases."))
    cases: dict[Names, Case] = {}
    archs = {suite.models[model].arch for _, model, _, _ in drafts}
    sources = {arch: source_hash(arch) for arch in sorted(archs)}
    for names in drafts:
        try:
            _build(suite, names, drafts, sources, cases, ())
        except Faults as error:
            faults += error.faults
    faults += [fault for names, case in cases.items() for fault in _long_names(names, case)]
    faults += _unmatched_globs(suite, [case_name(names) for names in drafts])
    if faults:
        raise Faults(list(dict.fromkeys(faults)))
    return [cases[names] for names in drafts]


def _long_names(names: Names, case: Case) -> Iterator[Fault]:
    """Find cases whose folder would have a name that file systems refuse."""
    length = len(case.name) + len("__") + DIGITS_OF_A_FOLDER
    if length > LONGEST_NAME:
        kinds = dict(zip(("datasets", "models", "recipes"), names[:3], strict=True))
        kind, longest = max(kinds.items(), key=lambda item: len(item[1]))
        yield Fault(
            (kind, longest),
            f"The folders of its cases would have names of {length} letters, more than the "
            f"{LONGEST_NAME} that are allowed; use a shorter key.",
        )


def _unmatched_globs(suite: Suite, names: list[str]) -> Iterator[Fault]:
    """Find the globs that match no case: such a gate or table would silently do nothing."""
    reported = {i: one.case for i, one in enumerate(suite.reported) if IS_GLOB.search(one.case)}
    globs: dict[tuple[str | int, ...], str] = {
        **{("reported", i, "case"): pattern for i, pattern in reported.items()},
        **{("tables", key, "cases"): one.cases for key, one in suite.tables.items()},
        **{("gate", "floors", i, "case"): one.case for i, one in enumerate(suite.gate.floors)},
        **{("gate", "exact", i): pattern for i, pattern in enumerate(suite.gate.exact)},
    }
    for path, pattern in globs.items():
        if names and not fnmatch.filter(names, pattern):
            yield Fault(path, f"{pattern!r} matches no case. Cases: {listed(names, NAMES_SHOWN)}.")


def _rows(suite: Suite) -> Iterator[tuple[CaseRow, tuple[str | int, ...]]]:
    if suite.cases is not None:
        for i, row in enumerate(suite.cases):
            yield row, ("cases", i)
        return
    for dataset in suite.datasets:
        for model in suite.models:
            for recipe in suite.all_recipes:
                yield CaseRow(dataset=dataset, model=model, recipe=recipe), ("models", model)


def _excluded(suite: Suite, names: Names) -> bool:
    return any(
        _matches(names, select.dataset, select.model, select.recipe)
        and select.seed in (None, names[3])
        for select in suite.exclude
    )


def _matches(names: Names, dataset: str, model: str, recipe: str) -> bool:
    patterns = (dataset, model, recipe)
    return all(fnmatch.fnmatchcase(n, p) for n, p in zip(names[:3], patterns, strict=True))


def _build(
    suite: Suite,
    names: Names,
    drafts: Drafts,
    sources: Mapping[str, str | None],
    cases: dict[Names, Case],
    children: tuple[Names, ...],
) -> Case:
    """Build the case of `names`, after the case it starts from."""
    if names in cases:
        return cases[names]
    row, _ = drafts[names]
    spec, recipe = suite.models[row.model], _recipe(suite, names)
    parent, init_from = None, row.init_from or spec.init_from
    if init_from is not None:
        parent_names = _parent_names(names, init_from)
        _check_parent(suite, names, parent_names, drafts, children)
        start = _build(suite, parent_names, drafts, sources, cases, (*children, names))
        parent = Parent(id=start.id, name=start.name, folder=start.folder, part=init_from.part)
    cases[names] = Case(
        dataset_name=row.dataset,
        model_name=row.model,
        recipe_name=row.recipe,
        label=row.label or spec.label or row.model,
        dataset=suite.datasets[row.dataset],
        train_split=suite.splits.train,
        model=spec,
        source=sources[spec.arch],
        recipe=recipe,
        seed=names[3],
        limit=suite.limit,
        parent=parent,
        select_split=suite.splits.select if recipe.selects else None,
        numerics_version=NUMERICS_VERSION,
    )
    return cases[names]


def _recipe(suite: Suite, names: Names) -> Recipe:
    """Return the recipe of a case, with the suite's overrides."""
    recipe = suite.all_recipes[names[2]]
    for i, override in enumerate(suite.overrides):
        if not _matches(names, override.dataset, override.model, override.recipe_name):
            continue
        try:
            recipe = change_recipe(recipe, override.recipe)
        except Faults as error:
            texts = [f"Combined with other overrides: {fault.message}" for fault in error.faults]
            raise Faults([Fault(("overrides", i), text) for text in texts]) from error
    return recipe


def _check_parent(
    suite: Suite, names: Names, parent: Names, drafts: Drafts, children: tuple[Names, ...]
) -> None:
    """Check that a case can start from its parent.

    Raises:
        Faults: if the suite does not have the parent, deletes its weights, or goes in a cycle.
    """
    if suite.keep == "none":
        message = "init_from needs the trained weights, which keep: none deletes."
        raise Faults([Fault(("keep",), f"{message} Use keep: weights.")])
    path = (*drafts[names][1], "init_from")
    if parent not in drafts:
        known = (list(suite.datasets), list(suite.models), list(suite.all_recipes))
        kinds = ("dataset", "model", "recipe")
        for kind, name, there in zip(kinds, parent[:3], known, strict=True):
            if name not in there:
                raise Faults([Fault(path, f"init_from: {unknown(kind, name, there)}")])
        others = [case_name(other) for other in drafts if other != names]
        message = unknown("case", case_name(parent), others)
        raise Faults([Fault(path, f"init_from: {message}")])
    if parent in (names, *children):
        raise Faults([Fault(path, "init_from forms a cycle.")])


def _parent_names(names: Names, init_from: InitFrom) -> Names:
    dataset, _, recipe, seed = names
    return (
        init_from.dataset or dataset,
        init_from.model,
        init_from.recipe or recipe,
        seed if init_from.seed is None else init_from.seed,
    )


def matching(cases: Iterable[Case], pattern: str | None) -> list[Case]:
    """Return the cases whose name matches a glob, and the cases that those start from."""
    cases = list(cases)
    if pattern is None:
        return cases
    wanted = {c.name for c in cases if fnmatch.fnmatchcase(c.name, pattern)}
    for case in reversed(in_order(cases)):
        if case.name in wanted and case.parent is not None:
            wanted.add(case.parent.name)
    return [case for case in cases if case.name in wanted]


def in_order(cases: Iterable[Case]) -> list[Case]:
    """Return the cases ordered so that each comes after the one it starts from."""
    ordered: list[Case] = []
    waiting = list(cases)
    while waiting:
        names = {case.name for case in waiting}
        ready: list[Case] = []
        later: list[Case] = []
        for case in waiting:
            waits = case.parent is not None and case.parent.name in names
            (later if waits else ready).append(case)
        ordered += ready
        waiting = later
    return ordered
