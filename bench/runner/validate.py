"""Checking that a suite's cases can run, before any of them does.

What passed before is remembered. torch is imported only to check what is new.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.datasets.base import FileFault
from bench.errors import Fault, UserError
from bench.lookup import unknown
from bench.models.counts import Complexity, read_complexity
from bench.runner.remembered import recall, remember
from bench.suite.case import Case, open_case_dataset
from bench.suite.load import SuiteFile, SuiteSource, load
from bench.suite.schema import counted_size
from bench.suite.suite import Suite

Known = Callable[[Case, Mapping[str, str]], Complexity | None]


@dataclass(frozen=True)
class Checked:
    """What is known about a case before it runs.

    fingerprints: by split; empty if the data is missing.
    note: what a user should know about the network.
    """

    facts: Complexity
    fingerprints: Mapping[str, str]
    note: str | None = None


def load_checked(source: SuiteSource, settings: Iterable[str] = ()) -> SuiteFile:
    """Read a suite, and check its augmentations too."""
    return load(source, settings, check_transform=_check_transform)


def _check_transform(transform: Any) -> None:
    if recall("transform", transform):
        return
    from bench.loading.transforms import build_transform

    build_transform(transform)
    remember("transform", transform, True)


def check(
    file: SuiteFile,
    cases: Iterable[Case],
    roots: Mapping[str, Path],
    need_data: bool,
    device_name: str = "cpu",
    known: Known = lambda case, fingerprints: None,
) -> dict[str, Checked]:
    """Check each case's recipe, data, network and batch.

    Args:
        need_data: every split and weight file must exist; if False, what is missing is
            skipped, and networks are tried at the recipe's size or a default size.
        known: returns the counts of a case that is finished on data with these fingerprints,
            which needs no other check.

    Returns:
        What is known about each case, by its name.

    Raises:
        UserError: with every fault and its line.
    """
    if device_name not in ("auto", "cpu"):
        from bench.machine.device import pick_device

        pick_device(device_name)
    tried = Tried(list(_root_faults(file.suite, roots)))
    trial = Trial(file.suite, roots, need_data, device_name, known, tried)
    found = {case.name: trial.check(case) for case in cases}
    if tried.faults:
        raise file.error(tried.faults)
    return {name: checked for name, checked in found.items() if checked is not None}


@dataclass(frozen=True)
class Tried:
    """Runs a check that several cases share only once, and reports its fault once."""

    faults: list[Fault]
    found: dict[object, Any] = field(default_factory=dict)

    def once(
        self,
        kind: str,
        about: object,
        path: tuple[str, ...],
        of_data: tuple[str, ...],
        work: Callable[[], Any],
        *,
        keep: bool = True,
    ) -> Any:
        """Return the result of `work`, as JSON; None if it has a fault, which is then noted.

        Args:
            about: all that the result depends on, as JSON.
            keep: whether the result is remembered for the next time.
        """
        key = kind, repr(about)
        if key not in self.found:
            self.found[key] = None
            try:
                self.found[key] = (recall(kind, about) if keep else None) or self._new(
                    kind, about, work, keep
                )
            except FileFault as error:
                self.faults.append(Fault(of_data, f"{error} (`bench data check` lists all.)"))
            except UserError as error:
                self.faults.append(Fault(path, str(error)))
        return self.found[key]

    @staticmethod
    def _new(kind: str, about: object, work: Callable[[], Any], keep: bool) -> Any:
        found = work()
        if keep:
            remember(kind, about, found)
        return found


@dataclass(frozen=True)
class Trial:
    """Runs the checks of cases that no earlier case has run."""

    suite: Suite
    roots: Mapping[str, Path]
    need_data: bool
    device_name: str
    known: Known
    tried: Tried

    def check(self, case: Case) -> Checked | None:
        """Check a case; None if its network has a fault."""
        recipe, of_data = case.recipe, ("datasets", case.dataset_name)
        of_recipe = ("recipes", case.recipe_name) if self.suite.recipes else ("recipe",)
        look = partial(check_splits, self.suite, case, self.roots, self.need_data)
        splits = self.tried.once("splits", case.dataset_name, of_data, of_data, look, keep=False)
        facts = self.known(case, splits or {})
        if facts is not None:
            return Checked(facts, splits or {})
        asked = recipe.model_dump(mode="json")
        num_classes = self.tried.once(
            *("classes", case.dataset_name, of_data, of_data),
            lambda: case.dataset.labels.num_classes,
            keep=False,
        )
        about = [num_classes, asked, case.recipe_name, self.device_name]
        self.tried.once("recipe", about, of_recipe, of_data, partial(self._recipe, case))
        size = counted_size(recipe.size)  # the network is checked even if the data is missing
        if splits:
            scored = {name: one.model_dump(mode="json") for name, one in self.suite.scored.items()}
            about = [case.dataset_name, splits, asked, case.limit, case.train_split]
            where = partial(self._scored, case)
            self.tried.once("scored", [*about, scored], of_data, of_data, where)
            batch = self.tried.once("batch", about, of_recipe, of_data, partial(self._batch, case))
            size = size if batch is None else (batch[0], batch[1])
        parts = ("batch_size", "accumulate", "freeze_encoder", "encoder_lr", "decay", "optimizer")
        about = [
            *(case.model.model_dump(mode="json", exclude={"label"}), case.source, case.model_name),
            *(case.dataset_name, num_classes, size, case.parent and case.parent.part),
            *({part: asked[part] for part in (*parts, "memory_format", "deterministic")},),
            *(self.need_data, self.device_name),
        ]
        work = partial(self._network, case, size)
        found = self.tried.once("network", about, ("models", case.model_name), of_data, work)
        facts = None if found is None else read_complexity(found["facts"])
        return None if facts is None else Checked(facts, splits or {}, found["note"])

    def _recipe(self, case: Case) -> bool:
        from bench.runner.recipe_check import check_recipe

        check_recipe(case, self.device_name)
        return True

    def _scored(self, case: Case) -> bool:
        from bench.runner.data_check import check_scored

        check_scored(self.suite, case, self.roots)
        return True

    def _batch(self, case: Case) -> list[int]:
        from bench.runner.data_check import check_batch

        return list(check_batch(case, self.roots))

    def _network(self, case: Case, size: tuple[int, int]) -> dict[str, Any]:
        from bench.runner.network_check import check_network

        return asdict(check_network(case, size, self.need_data, self.device_name))


def _root_faults(suite: Suite, roots: Mapping[str, Path]) -> Iterable[Fault]:
    known = {*suite.datasets, *(spec.name for spec in suite.datasets.values())}
    for name, folder in roots.items():
        if name not in known:
            yield Fault((), f"--root {name}=…: {unknown('dataset', name, known)}")
        elif not folder.is_dir():
            yield Fault((), f"--root {name}={folder}: there is no such folder.")


def check_splits(
    suite: Suite, case: Case, roots: Mapping[str, Path], need_data: bool
) -> dict[str, str]:
    """Return the fingerprint of each used split; empty if data that may be missing is missing."""
    dataset = open_case_dataset(case, roots)
    if dataset.is_missing and not need_data:
        return {}
    splits = {case.train_split, suite.splits.select, *(e.split for e in suite.scored.values())}
    for split in sorted(splits):
        if split not in dataset.splits and split not in dataset.withheld:
            raise UserError(
                f"{unknown('split', split, dataset.splits)} Name the splits to use: "
                "splits: {train: NAME, select: NAME, report: [NAME]}."
            )
        if not dataset.samples(split):
            where = f" in {dataset.root}" if dataset.root is not None else ""
            raise UserError(f"The split {split!r} has no images{where}.")
    return {split: dataset.fingerprint(split) for split in sorted(splits)}


def remarks(
    suite: Suite,
    cases: Sequence[Case],
    roots: Mapping[str, Path],
    checked: Mapping[str, Checked],
) -> Iterator[str]:
    """Yield what a user should know of some cases' datasets and networks.

    These are files left out or used twice, and probabilities where logits are expected.
    """
    notes = {case.model_name: checked[case.name].note for case in cases}
    yield from (f"{model}: {note}" for model, note in notes.items() if note)
    for key in dict.fromkeys(case.dataset_name for case in cases):
        dataset = suite.datasets[key].open(key, roots)
        if not dataset.is_missing and (remark := dataset.remark()):
            yield f"{key}: {remark}"


def missing_files(suite: Suite, cases: Sequence[Case], roots: Mapping[str, Path]) -> Iterator[str]:
    """Yield a message for each dataset and weight file of some cases that does not exist here."""
    datasets = {case.dataset_name for case in cases}
    models = {case.model_name for case in cases}
    for key, spec in suite.datasets.items():
        if key not in datasets:
            continue
        dataset = spec.open(key, roots)
        if dataset.is_missing:
            yield f"{key} data not found"
    for key, model in suite.models.items():
        if key in models and model.weights is not None and model.weights.is_missing:
            yield f"{key} weights not found ({model.weights.source})"
