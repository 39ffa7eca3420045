"""What `run` and `evaluate` print: plans, outcomes, tables, lines of JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from tabulate import tabulate

from bench import report
from bench.case_folder import CaseFolder
from bench.data.loading import Loading
from bench.progress import duration
from bench.record import Profile, read_evaluations, read_record
from bench.schedule import Planned
from bench.suite import Suite
from bench.task import Outcome, Task
from bench.validate import Checked


class Screen:
    """Where a command prints: people's lines, or JSON on stdout and people's lines beside it."""

    def __init__(self, json_lines: bool) -> None:
        self.json_lines = json_lines
        self.console = Console(stderr=json_lines, highlight=False)
        self.loading = ""  # as it was last shown

    def say(self, text: str) -> None:
        """Print a text as it is."""
        self.console.print(text, markup=False, soft_wrap=True)

    def plan(
        self, suite: Suite, folder: object, planned: Sequence[Planned], facts: dict[str, Checked]
    ) -> None:
        """Print what would run."""
        rows = []
        for item in planned:
            case, known = item.case, facts[item.case.id].facts
            if self.json_lines:
                self._json(
                    suite=suite.name,
                    case=case.name,
                    id=case.id,
                    state=item.state,
                    reason=item.reason,
                    num_params=known.num_params,
                )
                continue
            length = f"{case.recipe.steps} steps"
            if case.recipe.steps is None:
                length = f"{case.recipe.epochs} epochs"
            params, size = f"{known.num_params / 1e6:.2f}", f"{known.size[0]}x{known.size[1]}"
            rows.append([case.name, item.state, params, size, f"{known.gmacs:.2f}", length])
        if self.json_lines:
            return
        headers = ["case", "state", "params [M]", "input", "MACs [G]", "training"]
        self.say(tabulate(rows, headers, disable_numparse=True))
        done = sum(item.state == "done" for item in planned)
        self.say(f"\n{len(rows)} cases of {suite.name} in {folder}; {done} done.")
        self.reasons(planned)

    def reasons(self, planned: Sequence[Planned]) -> None:
        """Say why cases are in the state they are in."""
        for item in planned:
            if item.reason is not None:
                self.say(f"  {item.case.name}: {item.state}, {item.reason}")

    def outcome(self, suite: Suite, outcome: Outcome, task: Task, number: int, total: int) -> None:
        """Say what became of a case."""
        head = f"[{number}/{total}] {outcome.case.name}: "
        if outcome.status != "ok":
            self.say(f"{head}{outcome.status}: {outcome.reason}")
        else:
            scored = [e for e in read_evaluations(task.folder) if e.name in task.evaluations]
            figures = [f"{e.name} mIoU {_percent(e.scores['miou'])}" for e in scored]
            self.say(f"{head}ok, {', '.join(figures)}, {duration(outcome.seconds)}")
            self._say_loading(task)
        for note in outcome.notes:
            self.say(f"  {note}")
        if self.json_lines:
            self.json_outcome(suite, outcome, task)

    def _say_loading(self, task: Task) -> None:
        """Say how images were fetched, where that is not as before."""
        record = read_record(task.folder)
        if record is None or not record.loading:
            return
        kept = record.loading["cache"]
        loading = Loading(**{k: v for k, v in record.loading.items() if k != "cache"})
        decoded = "decoded each time" if kept == "none" else f"decoded once ({kept})"
        shown = f"{loading.description}, {decoded}"
        if shown != self.loading:
            self.say(f"  images: {shown}")
        self.loading = shown

    def json_outcome(
        self, suite: Suite, outcome: Outcome, task: Task, skipped: bool = False
    ) -> None:
        """Print an outcome as a line of JSON, with its scores; skipped: it was done before."""
        scores = None
        if outcome.status == "ok":
            scores = {e.name: e.scores for e in read_evaluations(task.folder)}
        self._json(
            suite=suite.name,
            case=outcome.case.name,
            id=outcome.case.id,
            status=outcome.status,
            skipped=skipped,
            reason=outcome.reason,
            seconds=outcome.seconds,
            notes=outcome.notes,
            folder=str(task.folder),
            scores=scores,
        )

    def profile(self, case: Profile, number: int, total: int) -> None:
        """Say what a network costs."""
        if self.json_lines:
            self._json(**case.model_dump(mode="json", exclude={"case"}), case=case.case.name)
            return
        params, latency = case.complexity["num_params"] / 1e6, case.latency
        self.say(
            f"[{number}/{total}] {case.case.label}: {params:.2f} M parameters, "
            f"{case.complexity['gmacs']:.2f} GMAC, {latency.p50_ms:.1f} ms at "
            f"{latency.size[0]}x{latency.size[1]}"
        )

    def profiles(self, folder: Path) -> None:
        """Write the report of a suite that was profiled, and print what it says of costs."""
        [made] = report.report([folder], folder.parent)
        report.write([made], report.USUAL_FORMATS, None)
        if not self.json_lines:
            shown = [t for t in made.tables if t.kind in ("profile", "reported")]
            self.say(f"\n{report.text(made, shown)}\nTables: {folder / 'report'}")

    def tables(self, planned: Sequence[Planned], seconds: float) -> None:
        """Write the report of a suite, print its summary, and say where everything lies."""
        if not any(CaseFolder(item.task.folder).record.exists() for item in planned):
            return
        folder = planned[0].task.folder.parent
        [made] = report.report([folder], folder.parent)
        report.write([made], report.USUAL_FORMATS, None)
        if not self.json_lines:
            self.say(f"\n{report.text(made, [t for t in made.tables if t.kind == 'summary'])}")
        where = f"Records: {folder}   Tables: {folder / 'report'}"
        self.say(f"\nIn {duration(seconds)}. {where}")

    def _json(self, **line: Any) -> None:
        print(json.dumps(line), flush=True)


def _percent(score: float | None) -> str:
    return "none" if score is None else f"{100 * score:.2f} %"
