"""Progress bars and lines, read from the heartbeats of running cases."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from bench.cli.console import Console
from bench.machine.files import read_json
from bench.records.case_folder import CaseFolder
from bench.text import duration

POLL_S = 0.5


@dataclass
class Watched:
    """What is shown: the running cases, each with its folder and start, and how many are done."""

    num_cases: int
    done: int = 0
    running: dict[str, tuple[CaseFolder, float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def begin(self, name: str, folder: CaseFolder) -> None:
        """Show another case."""
        self.running = self.running | {name: (folder, time.monotonic())}

    def end(self, name: str, seconds: float) -> None:
        """Count a case as done."""
        self.done += 1
        self.running = {key: value for key, value in self.running.items() if key != name}
        if seconds > 0:
            self.seconds.append(seconds)


@contextmanager
def watching(num_cases: int, console: Console) -> Iterator[Watched]:
    """Show progress while the body runs: a bar on a terminal, a line per epoch elsewhere."""
    watched = Watched(num_cases)
    stop = threading.Event()
    show = _bar if console.is_terminal else _lines
    thread = threading.Thread(target=show, args=(watched, console.rich, stop), daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        stop.set()
        thread.join()


def _bar(watched: Watched, console: RichConsole, stop: threading.Event) -> None:
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )
    shown: dict[str, TaskID] = {}
    with Live(bars, console=console, refresh_per_second=4, transient=True, redirect_stdout=False):
        while not stop.wait(POLL_S):
            running = watched.running
            for name in [name for name in shown if name not in running]:
                bars.remove_task(shown.pop(name))
            for number, (name, (folder, start)) in enumerate(running.items(), watched.done + 1):
                beat = _beat(folder)
                share = _share(beat)
                if name not in shown:
                    shown[name] = bars.add_task("", total=1.0, figures="")
                title = f"[{number}/{watched.num_cases}] {name}"
                figures = ", ".join([*_figures(beat), *_time_left(watched, start, share, beat)])
                bars.update(
                    shown[name],
                    description=escape(title),
                    completed=share,
                    figures=escape(figures),
                )


def _lines(watched: Watched, console: RichConsole, stop: threading.Event) -> None:
    shown: dict[str, int] = {}
    while not stop.wait(POLL_S):
        for name, (folder, start) in watched.running.items():
            beat = _beat(folder)
            epoch = beat.get("epoch", 0)
            if epoch > 1 and epoch != shown.get(name):
                parts = [*_figures(beat), *_time_left(watched, start, _share(beat), beat)]
                line = f"  {name}: {', '.join(parts)}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            shown[name] = epoch


def _beat(folder: CaseFolder) -> dict[str, Any]:
    beat = read_json(folder.alive)
    return beat if isinstance(beat, dict) else {}


def _share(beat: dict[str, Any]) -> float:
    return beat["step"] / beat["num_steps"] if beat.get("num_steps") else 0.0


def _figures(beat: dict[str, Any]) -> list[str]:
    if not beat.get("num_epochs"):
        return ["scoring"] if beat else []
    figures = [f"epoch {min(beat['epoch'], beat['num_epochs'])}/{beat['num_epochs']}"]
    if beat.get("loss") is not None:
        figures.append(f"loss {beat['loss']:.4f}")
    if beat.get("miou") is not None:
        figures.append(f"mIoU {100 * beat['miou']:.2f} %")
    if beat.get("images_per_s") is not None:
        figures.append(f"{beat['images_per_s']:.1f} img/s")
    return figures


def _time_left(watched: Watched, start: float, share: float, beat: dict[str, Any]) -> list[str]:
    """Estimate the time left for the case and for the suite from what is done so far."""
    if share <= 0:
        return []
    spent = time.monotonic() - start
    # After a resume, the share includes what was done before; the case itself knows better.
    case_s = beat.get("left_s") or spent * (1 - share) / share
    at_once = max(1, len(watched.running))
    after = watched.num_cases - watched.done - at_once
    typical = sum([*watched.seconds, spent + case_s]) / (len(watched.seconds) + 1)
    suite_s = case_s + after * typical / at_once
    return [f"{duration(case_s)} left", f"{duration(suite_s)} left in suite"]


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show the number of files done, on a terminal."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=RichConsole(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bars:
        bar = bars.add_task(title, total=None)

        def progress(done: int, total: int) -> None:
            bars.update(bar, completed=done, total=total)

        yield progress


@contextmanager
def downloading() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show the bytes done on a terminal; elsewhere, name each file once."""
    console, is_terminal = RichConsole(stderr=True), sys.stderr.isatty()
    begun: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not is_terminal,
    ) as bars:

        def progress(title: str, done: int, total: int | None) -> None:
            if title not in begun:
                begun[title] = bars.add_task(title, total=total)
                if not is_terminal:
                    console.print(title)
            bars.update(begun[title], completed=done, total=total)

        yield progress
