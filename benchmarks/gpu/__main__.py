"""Measure this machine's GPU in one go: tests, speed, waits, cases.

    python -m benchmarks.gpu --minutes 8 --camvid PATH

It needs no network. Each stage runs in a process of its own and within its share of the time; one
that fails, or has to be ended, keeps what it found, and the next one follows. OUT gets gpu.json,
gpu.md, the logs of the stages, and cases.tar.gz with the records of the cases, without weights.
The exit code is 1 if a stage failed. `--toy` tries every stage at its smallest, on the CPU too.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.gpu.page import Finding, page
from benchmarks.gpu.settings import ROOT, Settings, settings
from benchmarks.gpu.stage import SKIPPED
from benchmarks.gpu.stages import STAGES

PACKING_S = 5.0  # of the time, for the files at the end
GRACE_S = 10.0  # between asking a stage to end and ending it
LEFT_OUT = ("*.safetensors", "*.pt", "lease.*")


def main(words: list[str] | None = None) -> int:
    """Run the stages and write what they found; return the exit code."""
    asked = _read(words)
    out = Path(asked.out).absolute()
    (out / "logs").mkdir(parents=True, exist_ok=True)
    given = settings(asked.device, asked.camvid, str(out), is_toy=asked.toy)
    end = time.monotonic() + 60 * asked.minutes - PACKING_S
    started = time.strftime("%Y-%m-%d %H:%M")
    found: list[Finding] = []
    for name in asked.only or STAGES:
        found.append(_run(name, given, end))
        print(f"{found[-1].title}: {found[-1].status}, {found[-1].seconds:.0f} s", flush=True)
        # Written after each stage: the machine may go away.
        facts = {"started": started, "minutes": asked.minutes, "toy": asked.toy}
        content = facts | {"stages": [asdict(one) for one in found]}
        (out / "gpu.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (out / "gpu.md").write_text(page(found, started, asked.minutes), encoding="utf-8")
    _pack(out)
    print(f"\n{page(found, started, asked.minutes)}\nWritten: {out}")
    return int(any(one.status == "failed" for one in found))


def _read(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=8.0, help="the whole may take (default 8)")
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--camvid", help="folder of CamVid in SegNet's layout, for real images")
    parser.add_argument("--out", default="results/gpu", help="default: results/gpu")
    parser.add_argument("--only", nargs="+", choices=STAGES, help="run these stages alone")
    parser.add_argument("--toy", action="store_true", help="as small as can be, to try the command")
    asked = parser.parse_args(words)
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --toy --device cpu tries the command.")
    if asked.camvid is not None:
        if not Path(asked.camvid).is_dir():
            parser.error(f"--camvid: {asked.camvid} is not a folder.")
        asked.camvid = str(Path(asked.camvid).absolute())
    return asked


def _run(name: str, given: Settings, end: float) -> Finding:
    """Run a stage within its share of the time that is left."""
    stage, left = STAGES[name], end - time.monotonic()
    finding = Finding(name, stage.title, "skipped", 0.0, None, [])
    least = 0.0 if given.is_toy else stage.least_s
    if left < least:
        return replace(finding, reason=f"{max(left, 0):.0f} s were left, of {least:.0f}")
    seconds = max(least, stage.share * left)
    file, log = (Path(given.out) / "logs" / f"{name}{end}" for end in (".jsonl", ".txt"))
    file.unlink(missing_ok=True)
    given = replace(given, seconds=seconds)
    command = [sys.executable, "-m", "benchmarks.gpu.stage", name, given.json(), str(file)]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    start = time.monotonic()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = _wait(process, seconds)
    rows = _rows(file)
    last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
    status, reason = {
        0: ("done", None),
        None: ("ended", f"its {seconds:.0f} s were over; what it found until then is kept"),
        SKIPPED: ("skipped", last),
    }.get(code, ("failed", last or f"exit code {code}"))
    return Finding(name, stage.title, status, time.monotonic() - start, reason, rows)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for a stage, and end it and what it started after its time; None if it was ended."""
    code = None
    with suppress(subprocess.TimeoutExpired):
        code = process.wait(seconds)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            if number == signal.SIGTERM and code is not None:
                break
    return code


def _rows(file: Path) -> list[dict[str, object]]:
    """Read the rows of a stage; the last line may be half written."""
    rows: list[dict[str, object]] = []
    with suppress(OSError, ValueError):
        rows.extend(map(json.loads, file.read_text(encoding="utf-8").splitlines()))
    return rows


def _pack(out: Path) -> None:
    """Put the records of the cases into one archive, without weights."""
    if not (out / "cases").is_dir():
        return
    with tarfile.open(out / "cases.tar.gz", "w:gz") as archive:
        for file in sorted((out / "cases").rglob("*")):
            if file.is_file() and not any(map(file.match, LEFT_OUT)):
                archive.add(file, file.relative_to(out))


if __name__ == "__main__":
    sys.exit(main())
