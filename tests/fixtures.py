"""Generated datasets in their real layouts, and results whose names are hard for formats."""

import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from bench.compare.snapshot import CaseSnapshot
from bench.datasets.camvid import ORIGINAL
from bench.datasets.voc import voc_colour
from bench.machine.files import write_text
from bench.records.case_folder import CaseFolder
from bench.records.record import EvaluationRecord, Record, Resolved, Training, write_resolved
from bench.suite.case import Case
from bench.suite.columns import CONVENTIONS
from bench.suite.evaluation import Evaluation
from bench.suite.expand import expand
from bench.suite.suite import Suite

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
            "values": {"miou": 0.5},
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
    write_text(place.case, case.model_dump_json())
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
            conventions=dict.fromkeys(CONVENTIONS, miou),
            class_iou={"x&y": miou / 2, "z": None},
            most_frequent="x&y",
            floor=dict.fromkeys(names, 0.125),
            seconds=1.0,
        )
        write_text(place.evaluation(name), evaluation.model_dump_json())
        write_counts(place.evaluation(name).with_suffix(".npz"), miou, case.seed)
    write_text(place.record, record.model_dump_json())


def case_snapshot(**more: object) -> CaseSnapshot:
    """A finished case d__m__r__s0 without details."""
    known = {"id": "i", "label": "m", "model": ("d", "m", "r"), "seed": 0, "status": "ok"}
    return CaseSnapshot(**known | {"asked": {}, "software": {}} | more)


def write_counts(file: Path, share: float, seed: int) -> None:
    """Count 40 images of 100 pixels of x&y; about the given share is right, the rest is z."""
    rng = np.random.default_rng((seed, round(1000 * share)))
    right = np.clip(rng.normal(100 * share, 3, 40), 0, 100).round().astype(np.uint32)
    counts = np.zeros((40, 4, 2), np.uint32)
    counts[:, 0, 0] = 100
    counts[:, 1, 0] = counts[:, 2, 0] = right
    counts[:, 1, 1] = 100 - right
    np.savez(file, ids=np.array([f"i{n}" for n in range(40)]), per_image=counts)


def make_camvid(root: Path) -> Path:
    for split, num in (("train", 3), ("val", 2), ("test", 1)):
        lines = []
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for i in range(num):
            rng = np.random.default_rng((num, i))
            image, mask = f"{split}/a{i}.png", f"{split}annot/a{i}.png"
            Image.fromarray(rng.integers(0, 255, (8, 10, 3)).astype(np.uint8)).save(root / image)
            Image.fromarray(rng.integers(0, 12, (8, 10)).astype(np.uint8)).save(root / mask)
            lines.append(f"/SegNet/CamVid/{image} /SegNet/CamVid/{mask}\n")
        (root / f"{split}.txt").write_text("".join(lines))
    return root


def make_folder(root: Path, mask: list[list[int]]) -> Path:
    """Make a user's folder in the default layout: JPEG images and index masks, one pattern."""
    for split, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        for name in names:
            values = np.array(mask, np.uint8)
            tone = np.full((*values.shape, 3), 9 * ord(name) % 256, np.uint8)
            Image.fromarray(tone).save(root / "images" / split / f"{name}.jpg")
            Image.fromarray(values).save(root / "masks" / split / f"{name}.png")
    return root


CITYSCAPES_FRAMES = {
    "train": ("aachen_000000_000019", "aachen_000001_000019", "bochum_000000_000313"),
    "val": ("frankfurt_000000_000294",),
}
CITYSCAPES_IDS = np.array([[*range(34), 255]], np.uint8)


def make_cityscapes(root: Path, ids: np.ndarray = CITYSCAPES_IDS) -> Path:
    """Write the official layout; every mask holds each id once, and 255."""
    image = np.zeros((*ids.shape, 3), np.uint8)
    for split, frames in CITYSCAPES_FRAMES.items():
        for frame in frames:
            city = frame.split("_")[0]
            images, masks = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
            for folder in (images, masks):
                folder.mkdir(parents=True, exist_ok=True)
            image[..., 0] = len(list(images.iterdir()))
            Image.fromarray(image).save(images / f"{frame}_leftImg8bit.png")
            Image.fromarray(ids).save(masks / f"{frame}_gtFine_labelIds.png")
            Image.fromarray(ids).save(masks / f"{frame}_gtFine_instanceIds.png")
            Image.fromarray(image).save(masks / f"{frame}_gtFine_color.png")
            (masks / f"{frame}_gtFine_polygons.json").write_text("{}")
    return root


IDD_NUM_CLASSES = {"level1": 7, "level2": 16, "level3": 26, "level4": 30, "csTrainId": 19}
IDD_ENDINGS = {
    "level1": "_gtFine_labellevel1Ids.png",
    "level2": "_gtFine_labellevel2Ids.png",
    "level3": "_gtFine_labellevel3Ids.png",
    "level4": "_gtFine_labellevel4Ids.png",
    "csTrainId": "_gtFine_labelcsTrainIds.png",
}
IDD_FRAMES = {
    "IDD_Segmentation": ("png", {"train": ("0/frame0000", "12/frame0000"), "val": ("3/frame9",)}),
    "idd20kII": ("jpg", {"train": ("201/frame0029", "7/0000075"), "val": ("201/frame0029",)}),
}


def make_idd(
    root: Path, parts: tuple[str, ...] = tuple(IDD_FRAMES), label_set: str = "level3"
) -> Path:
    """Write the official layouts; every mask holds each label of the set, and 255."""
    mask = np.array([[*range(IDD_NUM_CLASSES[label_set]), 255]], np.uint8)
    for part in parts:
        suffix, splits = IDD_FRAMES[part]
        for number, (split, frames) in enumerate(splits.items()):
            for frame in frames:
                image = root / part / "leftImg8bit" / split / f"{frame}_leftImg8bit.{suffix}"
                labels = root / part / "gtFine" / split / f"{frame}{IDD_ENDINGS[label_set]}"
                for file in (image, labels):
                    file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((*mask.shape, 3), number, np.uint8)).save(image)
                Image.fromarray(mask).save(labels)
    return root


def make_voc(root: Path, year: str = "2012") -> Path:
    base = root / f"VOC{year}"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    names = {"train": ["2007_000001", "2007_000002"], "val": ["2007_000003"]}
    names["trainval"] = names["train"] + names["val"]
    if year == "2007":
        names["test"] = ["2007_000004"]
    for split, ids in names.items():
        (base / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(ids) + "\n")
        for name in ids:
            make_photo(base / "JPEGImages" / f"{name}.jpg", 40 * int(name[-1]))
            make_voc_mask(base / "SegmentationClass" / f"{name}.png")
    return root


def make_photo(file: Path, tone: int) -> None:
    Image.fromarray(np.full((9, 7, 3), tone, np.uint8)).save(file)


def make_voc_mask(file: Path) -> None:
    mask = Image.new("P", (7, 9))
    mask.putdata([255, 0, 20, 15, 1, 0, 255] * 9)
    mask.putpalette([c for label in range(256) for c in voc_colour(label)])
    mask.save(file)


def make_voc_aug(root: Path) -> Path:
    """Make VOC 2012 and two more masks as .mat files, as in SBD; one is of VOC's val."""
    make_voc(root)
    sbd = root / "benchmark_RELEASE" / "dataset"
    for folder in ("cls", "img"):
        (sbd / folder).mkdir(parents=True)
    (sbd / "train.txt").write_text("2008_000005\n")
    (sbd / "val.txt").write_text("2007_000003\n2007_000002\n")
    for name in ("2008_000005", "2007_000003", "2007_000002"):
        make_photo(sbd / "img" / f"{name}.jpg", 40 * int(name[-1]))
        labels = np.array([[0, 0, 20, 15, 1, 0, 0]] * 9, np.uint8)
        struct = {"Boundaries": np.zeros((20, 1)), "Segmentation": labels}
        struct["CategoriesPresent"] = np.array([[20], [15], [1]], np.uint8)
        savemat(sbd / "cls" / f"{name}.mat", {"GTcls": struct})
    return root


def make_camvid_colour(root: Path) -> Path:
    """Make the original colour masks of CamVid, with the usual class_dict.csv."""
    root.mkdir(exist_ok=True)
    lines = [f"{name},{r}, {g},{b}\n" for name, ((r, g, b), _) in ORIGINAL.items()]
    (root / "class_dict.csv").write_text("name,r,g,b\n" + "".join(lines))
    colours = np.array([colour for colour, _ in ORIGINAL.values()], np.uint8)
    for split in ("train", "val", "test"):
        for folder in (split, f"{split}_labels"):
            (root / folder).mkdir()
        for name in ("0001TP_006690", "0001TP_006720"):
            make_photo(root / split / f"{name}.png", int(name[-3]) * 9)
            # 63 pixels: every class in order, then Void
            mask = np.zeros((63, 3), np.uint8)
            mask[: len(colours)] = colours
            Image.fromarray(mask.reshape(9, 7, 3)).save(root / f"{split}_labels" / f"{name}_L.png")
    return root


def pdf_text(tex: str, folder: Path, font: str | None = None) -> str:
    """Compile a table with pdfLaTeX, or with XeLaTeX and a font, and return what TeX says."""
    other = f"\\usepackage{{fontspec}}\\setmainfont{{{font}}}"
    plain = "\\usepackage[T1]{fontenc}\\usepackage[utf8]{inputenc}"
    document = (
        "\\documentclass{article}\\usepackage{array,booktabs,graphicx,siunitx,textcomp}"
        f"{other if font else plain}\\begin{{document}}\n{tex}\n\\end{{document}}\n"
    )
    (folder / "t.tex").write_text(document)
    program = "xelatex" if font else "pdflatex"
    done = subprocess.run(
        [program, "-halt-on-error", "-interaction=nonstopmode", "t.tex"],
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
    found = subprocess.run(["kpsewhich", "siunitx.sty"], capture_output=True)
    if found.returncode:
        pytest.skip("needs siunitx (Debian: texlive-science)")


def write_tiff(
    file: Path,
    pixels: np.ndarray,
    *,
    planar: bool = False,
    extra: tuple[int, ...] = (),
    photometric: int | None = None,
    bits: int | None = None,
    pages: Sequence[int] = (0,),
    more: Mapping[int, list[int]] | None = None,
) -> Path:
    """Write an uncompressed TIFF by hand, with tags as raster programs set them.

    Args:
        pixels: (H, W, bands), in any type and byte order.
        extra: meaning of the bands after grey or RGB.
        bits: of one sample, if a byte of `pixels` holds several.
        pages: the flags of each page; all have the same pixels.
        more: tags with other values; [] leaves one out.
    """
    height, width, num_bands = pixels.shape
    big = pixels.dtype.byteorder == ">"
    order, dtype = (">" if big else "<"), pixels.dtype
    planes = [pixels[..., i].tobytes() for i in range(num_bands)] if planar else [pixels.tobytes()]
    data = bytearray((b"MM\0*" if big else b"II*\0") + bytes(4))
    places = []
    for plane in planes:
        places.append(len(data))
        data += plane
    depth = bits or 8 * dtype.itemsize
    tags = {
        254: None,
        256: [width * 8 // depth if bits else width],
        257: [height],
        258: [depth] * num_bands,
        259: [1],
        262: [photometric if photometric is not None else 2 if num_bands > 2 else 1],
        273: places,
        277: [num_bands],
        278: [height],
        279: [len(plane) for plane in planes],
        284: [2 if planar else 1],
        338: list(extra),
        339: [{"u": 1, "i": 2, "f": 3}[dtype.kind]] * num_bands,
    }
    tags |= more or {}
    link = 4
    for flags in pages:
        here = {tag: value for tag, value in sorted((tags | {254: [flags]}).items()) if value}
        far = {}
        for tag, value in here.items():
            if len(value) > 1:
                far[tag] = len(data)
                data += struct.pack(f"{order}{len(value)}I", *value)
        struct.pack_into(f"{order}I", data, link, len(data))
        data += struct.pack(f"{order}H", len(here))
        for tag, value in here.items():
            data += struct.pack(f"{order}HHII", tag, 4, len(value), far.get(tag, value[0]))
        link = len(data)
        data += bytes(4)
    file.write_bytes(data)
    return file
