import io
import time
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from bench.cli.console import Console
from bench.cli.progress import watching
from bench.records.case_folder import CaseFolder
from bench.text import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.2, "4 s"), (59.9, "1 min 0 s"), (187, "3 min 7 s"), (8100, "2 h 15 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_running_case_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    shown = io.StringIO()
    console = Console()
    console.rich = RichConsole(file=shown, force_terminal=True, width=140)  # as FORCE_COLOR does
    monkeypatch.setattr(Console, "is_terminal", terminal)
    folder = CaseFolder(tmp_path)
    with watching(3, console) as watched:
        watched.begin("data__model__recipe__s0", folder)
        for epoch in (1, 2):
            beat = {"num_epochs": 4, "num_steps": 40, "loss": 0.5, "miou": 0.25}
            folder.beat(epoch=epoch, step=10 * epoch, images_per_s=7.0, **beat)
            time.sleep(1.2)
        watched.end("data__model__recipe__s0", 2.0)
    text = shown.getvalue()
    for part in ("data__model__recipe__s0", "epoch 2/4", "loss 0.5000", "25.00 %", "7.0 img/s"):
        assert part in text
    assert "left in suite" in text
    assert ("[1/3]" in text) == terminal
