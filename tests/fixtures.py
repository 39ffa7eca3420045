"""Made by hand: datasets in their real layouts, and results with names that formats trip over."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.case import Case, expand
from bench.data.voc2012 import LABELS as VOC
from bench.record import (
    CaseFolder,
    EvaluationRecord,
    Record,
    Resolved,
    Training,
    write_resolved,
    write_text,
)
from bench.suite import Evaluation, Suite

SUITE = {
    "name": "paper",
    "datasets": {"shapes": {}},
    "models": {
        "A": {"arch": "custom/fcn", "label": "A_1"},
        "B": {"arch": "custom/enet", "label": "<script> & 50% | $x$ {b} \\c #~^"},
        "C": {"arch": "smp/unet", "label": "C"},
    },
    "recipe": {"epochs": 2},
    "seeds": [0, 1],
    "exclude": [{"model": "C", "seed": 1}],
    "tables": {
        "own": {"columns": ["num_params", "miou"], "order": "miou", "caption": "Mine & yours"}
    },
    "reported": [
        {
            "case": "*__A__*",
            "split": "val",
            "metric": "miou",
            "value": 0.5,
            "source": "Somebody 2016",
            "not_comparable": "another split",
        }
    ],
}
MIOU = {("A", 0): 0.5, ("A", 1): 0.6, ("B", 0): 0.7, ("B", 1): 0.7}


def make_results(folder: Path) -> Path:
    """Write the records of `SUITE` and return its folder."""
    suite = Suite.model_validate(SUITE)
    cases = expand(suite)
    out = folder / "paper"
    for case in cases:
        write_case(out, case)
    write_resolved(out, Resolved(suite=suite, cases=tuple(cases)))
    return out


def write_case(out: Path, case: Case) -> None:
    place = CaseFolder(out / case.folder)
    common = {
        "id": case.id,
        "case": case,
        "started": "2026-01-01T00:00:00+0000",
        "finished": "2026-01-01T01:00:00+0000",
        "environment": {"cpu": "CPU_1"},
    }
    if case.model_name == "C":
        record = Record(status="failed", reason="it broke | badly", **common)
        write_text(place.record, record.model_dump_json())
        return
    record = Record(
        status="ok",
        numerics={"device": "cpu", "precision": "fp32", "threads": 2},
        complexity={
            "num_params": 1_000_000,
            "num_trainable": 1_000_000,
            "num_unreached": 250_000 if case.model_name == "B" else 0,
            "model_bytes": 4_000_000,
            "checkpoint_bytes": 12_000_000,
            "gmacs": 1.5,
            "size": [96, 96],
        },
        training=Training(
            epochs=2, steps=40, num_train=160, epoch_s=10.0 + case.seed, images_per_s=16, total_s=21
        ),
        **common,
    )
    miou = MIOU[case.model_name, case.seed]
    for name in ("val", "train"):
        names = [
            "miou",
            "pixel_accuracy",
            "dice",
            "f1",
            "sensitivity",
            "mean_pixel_accuracy",
            "precision",
            "specificity",
            "fw_iou",
        ]
        scores = dict.fromkeys(names, miou)
        evaluation = EvaluationRecord(
            name=name,
            asked=Evaluation(split=name),
            protocol={
                "dataset": "Shapes",
                "classes": 2,
                "void": "excluded",
                "split": name,
                "fingerprint": "f",
                "limit": None,
                "size": "as stored",
                "method": "whole",
                "score_at": "stored",
                "checkpoint": "last",
                "miou": "m",
            },
            numerics=record.numerics,
            num_images=40,
            num_averaged=2,
            scores=scores | {"loss": 1.25},
            class_iou={"x&y": miou / 2, "z": None},
            most_frequent="x&y",
            floor=dict.fromkeys(names, 0.125),
            seconds=1.0,
        )
        write_text(place.evaluation(name), evaluation.model_dump_json())
    write_text(place.record, record.model_dump_json())


def make_camvid(root: Path) -> Path:
    for split, num in (("train", 3), ("val", 2), ("test", 1)):
        lines = []
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for i in range(num):
            rng = np.random.default_rng(i)
            image, mask = f"{split}/a{i}.png", f"{split}annot/a{i}.png"
            Image.fromarray(rng.integers(0, 255, (8, 10, 3)).astype(np.uint8)).save(root / image)
            Image.fromarray(rng.integers(0, 12, (8, 10)).astype(np.uint8)).save(root / mask)
            lines.append(f"/SegNet/CamVid/{image} /SegNet/CamVid/{mask}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def make_voc(root: Path) -> Path:
    base = root / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    names = {"train": ["2007_000001", "2007_000002"], "val": ["2007_000003"]}
    names["trainval"] = names["train"] + names["val"]
    for split, ids in names.items():
        (base / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(ids) + "\n")
        for i, name in enumerate(ids):
            grey = np.full((9, 7, 3), 40 * i, np.uint8)
            Image.fromarray(grey).save(base / "JPEGImages" / f"{name}.jpg")
            mask = Image.new("P", (7, 9))
            mask.putdata([255, 0, 20, 15, 1, 0, 255] * 9)
            mask.putpalette([c for colour in VOC.palette for c in colour])
            mask.save(base / "SegmentationClass" / f"{name}.png")
    return root


def pdf_text(tex: str, folder: Path) -> str:
    document = (
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\usepackage[T1]{fontenc}"
        "\\usepackage{textcomp}\\usepackage[utf8]{inputenc}\\begin{document}\n"
        f"{tex}\n\\end{{document}}\n"
    )
    (folder / "t.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def require_pdflatex() -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex (Debian: texlive-latex-recommended)")
