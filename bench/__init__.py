"""A benchmark harness for semantic segmentation.

`run`, `evaluate`, `report` and `compare` do what the commands of the same names do, but return
data instead of printing it; `load` reads records into one tidy DataFrame. docs/python.md has
examples. A mistake of the caller raises `UserError`.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from bench.arguments import as_path, as_roots, require, require_mapping, require_names
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from bench.compare.compare import Comparison
    from bench.report.report import Report
    from bench.runner.result import CaseResult

__all__ = ["UserError", "__version__", "compare", "evaluate", "load", "report", "run"]
__version__ = "0.1.0"

SuiteSource = str | Path | Mapping[str, Any]  # a file, the name of a shipped suite, or its content
Settings = Mapping[str, Any]  # such as {"recipe.epochs": 2}
CacheMode = Literal["auto", "ram", "disk", "none"]


def run(
    suite: SuiteSource,
    *,
    pattern: str | None = None,
    settings: Settings | None = None,
    device: str = "auto",
    roots: Mapping[str, str | Path] | None = None,
    out: str | Path = "results",
    engine: Literal["process", "in-process", "slurm", "ray"] | None = None,
    cluster: str | Path | None = None,
    workers: int = 1,
    timeout_s: float | None = None,
    ray_address: str | None = None,
    gpus_per_case: int = 1,
    loader_workers: int | None = None,
    cache: CacheMode | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    wait: bool = False,
    shard: str | None = None,
    on_result: "Callable[[CaseResult], None] | None" = None,
) -> "list[CaseResult]":
    """Train and evaluate the cases of a suite; finished cases are skipped.

    The first Ctrl-C saves the running cases and then raises KeyboardInterrupt; the same call
    continues. (In a thread other than the main one, Python cannot catch Ctrl-C.)

    Args:
        suite: a file, the name of a shipped suite, or the content of a suite file as a dict.
        pattern: glob on case names; None for all.
        settings: laid over the suite, such as {"recipe.epochs": 2, "limit": 32}.
        device: auto, cpu, cuda, cuda:1 or mps.
        roots: the folder of each dataset, by its name or its key in the suite.
        out: folder for results.
        engine: one process per case, all in this one, jobs of Slurm, or Ray; None: as the suite
            says.
        cluster: with the engine slurm, the file that says what the jobs ask for.
        workers: cases at once, each with a GPU or a share of the cores.
        timeout_s: end a case that runs for longer.
        ray_address: of the Ray cluster; None: the one that Ray finds, or one for this call.
        gpus_per_case: train each case on several GPUs, by a process on each. If torchrun started
            this, as many as it has processes; all but the first then return nothing.
        loader_workers: processes that read images; None: as measured.
        cache: where decoded images are kept; None: as the suite says.
        retry_failed: run failed cases again.
        fail_fast: stop at the first failed case.
        wait: wait for what other hosts or processes run, too; with Slurm, for the jobs, else the
            cases that have not ended are `submitted`.
        shard: "K/N": run only the K-th of N shares of the cases.
        on_result: called with each result as soon as there is one.

    Returns:
        The cases that were done before, then the others in the order in which they ended. A
        failed case is a result, not an exception. Cases that never started, because the run was
        stopped or `fail_fast` ended it, have no result.

    Raises:
        UserError: if the suite, its data or an argument has a fault.
        KeyboardInterrupt: after saving.
    """
    from bench.runner.gpus_per_case import as_started
    from bench.runner.placing import Placing
    from bench.runner.result import case_result
    from bench.runner.run_suite import (
        plan_suites,
        require_disk,
        require_engines,
        run_suite,
    )
    from bench.runner.shard import read_shard
    from bench.runner.stopping import stopping
    from bench.runner.task import Options, Outcome
    from bench.runner.validate import remarks

    require(suite=suite, pattern=pattern, device=device, workers=workers)
    require(timeout_s=timeout_s, ray_address=ray_address, loader_workers=loader_workers)
    require(on_result=on_result, shard=shard, gpus_per_case=gpus_per_case)
    asked = None if cluster is None else as_path("cluster", cluster)
    given = Placing(engine, workers, timeout_s, asked, wait, ray_address, gpus_per_case)
    placing = as_started(given)
    if placing is None:
        return []
    place = as_path("out", out)
    options = Options(device, as_roots(roots), loader_workers, cache, retry_failed)
    here, changes, part = placing.here(options), _settings(settings), read_shard(shard)
    found = plan_suites([suite], changes, pattern, place, here, need_data=True, shard=part)
    if not found:
        raise UserError(f"No case matches {pattern!r}.")
    require_engines(found, options, placing)
    require_disk(found, place, placing)
    [one] = found
    cases = [item.case for item in one.planned]
    for remark in remarks(one.suite, cases, options.roots, one.checked):
        warnings.warn(remark, stacklevel=2)
    tasks = {item.case.name: item.task for item in one.planned}
    results: list[CaseResult] = []

    def add(outcome: Outcome, *, skipped: bool = False) -> None:
        result = case_result(one.suite.name, outcome, tasks[outcome.case.name], skipped)
        results.append(result)
        if on_result is not None:
            on_result(result)

    for item in one.planned:
        if item.is_done:
            add(Outcome(item.case, "ok"), skipped=True)
    with stopping() as stop:
        options = replace(options, should_stop=stop.is_due)
        for outcome in run_suite(one, options, placing, fail_fast=fail_fast):
            add(outcome)
    if stop.asked:
        raise KeyboardInterrupt
    return results


def evaluate(
    suite: SuiteSource,
    *,
    pattern: str | None = None,
    checkpoint: str | Path | None = None,
    settings: Settings | None = None,
    device: str = "auto",
    roots: Mapping[str, str | Path] | None = None,
    out: str | Path = "results",
    loader_workers: int | None = None,
    cache: CacheMode | None = None,
) -> "list[CaseResult]":
    """Score kept weights by the evaluations that are missing, or a checkpoint of your own.

    Args:
        suite: a suite as `run` takes it, or the folder of one case.
        checkpoint: a file of weights to score without training; the cases that `pattern` matches
            must have one model.
        pattern, settings, device, roots, out, loader_workers, cache: as of `run`.

    Returns:
        A result for each case.

    Raises:
        UserError: if the suite, its data or an argument has a fault.
        KeyboardInterrupt: after saving, if a checkpoint is given.
    """
    from bench.runner.result import case_result
    from bench.runner.scoring import checkpoint_settings, scoring_of_folder, scoring_of_suite
    from bench.runner.task import Options
    from bench.runner.validate import load_checked

    require(suite=suite, pattern=pattern, device=device, loader_workers=loader_workers)
    options = Options(device, as_roots(roots), loader_workers, cache)
    changes = _settings(settings)
    folder = Path(suite) if isinstance(suite, str | Path) and Path(suite).is_dir() else None
    if folder is not None and (pattern or checkpoint or settings):
        raise UserError(
            "The folder of a case is scored as its suite says; pattern, checkpoint and settings "
            "go with a suite."
        )
    if checkpoint is not None:
        file = as_path("checkpoint", checkpoint)
        own = checkpoint_settings(load_checked(suite, changes), pattern, file)
        return run(
            suite,
            pattern=pattern,
            settings={**(settings or {}), **own},
            device=device,
            roots=roots,
            out=out,
            loader_workers=loader_workers,
            cache=cache,
            retry_failed=True,
        )
    if folder is not None:
        scoring = scoring_of_folder(folder)
    else:
        place = as_path("out", out)
        scoring = scoring_of_suite(load_checked(suite, changes), pattern, changes, place)
    if not scoring.tasks:
        raise UserError(f"No case matches {pattern!r}.")
    return [
        case_result(scoring.suite.name, outcome, task)
        for task, outcome in zip(scoring.tasks, scoring.run(options), strict=True)
    ]


def report(
    *targets: str | Path,
    results: str | Path = "results",
    tables: Sequence[str] | None = None,
    by: Literal["dataset", "model", "recipe"] = "dataset",
    sort: str | None = None,
    reported: bool = True,
    prefer: Literal["newest"] | None = None,
    settings: Settings | None = None,
    formats: Sequence[str] = (),
    out: str | Path | None = None,
) -> "list[Report]":
    """Turn records into tables.

    Args:
        targets: suites or folders with results; none: every suite in `results`.
        tables: kinds of tables, such as ["summary", "per_class"]; None: all.
        by: whether tables are made per dataset, per model or per recipe.
        sort: a column, best first, such as "miou"; None: the suite's order.
        reported: whether published figures stand beside ours.
        prefer: which record to use if folders have different records of a case; None: that is an
            error.
        settings: as the suites were run.
        formats: of the files to write: md, latex, csv, json, html, png, pdf; empty: no files.
        out: folder for the files; None: `report` in each suite's folder of results.

    Returns:
        A report for each suite, with its tables as data and its records as a DataFrame;
        `str(report)` is Markdown.

    Raises:
        UserError: if a target has no records, records of a case disagree, a name is unknown, or a
            file cannot be written.
    """
    from bench.report.group import Choice
    from bench.report.report import report as make
    from bench.report.write import write

    require_names("formats", formats, '["md", "pdf"]')
    if tables is not None:
        require_names("tables", tables, '["summary"]')
    choice = Choice(None if tables is None else tuple(tables), by, sort, reported)
    paths = [as_path("a target", target) for target in targets]
    made = make(paths, as_path("results", results), _settings(settings), choice, prefer)
    if formats:
        written = write(made, formats, None if out is None else as_path("out", out))
        made[0] = replace(made[0], notes=[*made[0].notes, *written.notes])
    return made


def compare(
    base: str | Path,
    new: str | Path | None = None,
    *,
    results: str | Path = "results",
    factor: float = 1.5,
) -> "list[Comparison]":
    """Find what changed between two sets of records, and whether it is noise.

    Args:
        base: a baseline (.json), a suite or a folder with results.
        new: the same; None: the records of the base's suites in `results`.
        factor: times and memory are worse if they grew by more than this factor.

    Returns:
        A comparison for each suite; `failures(strict=…, with_time=…)` lists what is worse.

    Raises:
        UserError: if there is nothing to compare.
    """
    from bench.compare.targets import compare_targets

    return compare_targets(
        as_path("base", base),
        None if new is None else as_path("new", new),
        as_path("results", results),
        factor,
    )


def load(*folders: str | Path) -> "pd.DataFrame":
    """Read every record below some folders into one tidy DataFrame.

    Returns:
        One row per case and evaluation, one per case without any. Scores are in 0..1, except
        `loss`; `iou/NAME` is the IoU of a class and `floor/NAME` a score of always predicting the
        most frequent class. Records that cannot be read and cases that did not finish are left out
        with a warning that names them. The sub-folders `published` and `baselines` of a given
        folder are skipped silently.

    Raises:
        UserError: if a folder does not exist.
    """
    from bench.records.frame import load as read
    from bench.records.frame import warn_of_missing

    paths = [as_path("a folder", folder) for folder in folders]
    frame = read(*paths)
    warn_of_missing(paths, frame)
    return frame


def _settings(given: Settings | None) -> list[str]:
    require_mapping("settings", given, '{"recipe.epochs": 2}')
    from bench.suite.load import as_settings

    return as_settings(given or {})


class _CallableModule(ModuleType):
    """A sub-package with the name of a function above; calling it calls the function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def __signature__(self) -> Any:
        """The function's signature, for help() and editors."""
        import inspect

        return inspect.signature(self.function)


def _make_callable(function: Callable[..., Any]) -> None:
    """Make the sub-package of a function's name callable: importing it hides the function."""
    # Its __init__ is empty, so this is fast.
    package = importlib.import_module(f"bench.{function.__name__}")
    package.__class__ = _CallableModule
    package.__dict__["function"] = function
    package.__doc__ = function.__doc__


_make_callable(report)
_make_callable(compare)
