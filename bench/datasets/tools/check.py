"""Read every image and mask of a dataset and report what is wrong."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.datasets.base import IGNORE_INDEX, Dataset, FileFault, Sample
from bench.datasets.tools.alignment import (
    LOW_FIT,
    MOST_SUSPECTS,
    NUM_REFERENCES,
    Suspect,
    chance,
    exchanged,
    fit,
    labels_of,
    look_of,
    shape_of,
    small,
)
from bench.datasets.tools.findings import CheckReport, Counts, Finding, Split
from bench.errors import UserError
from bench.lookup import USER_CODE_ERRORS
from bench.text import listed

FILES_SHOWN = 4  # in one finding
MANY_SUSPECTS = 0.1  # share of all pairs; above it, the pairing is probably wrong


@dataclass(frozen=True)
class _Read:
    """The result of reading one sample."""

    findings: tuple[tuple[str, str], ...]
    pixels: Counts | None = None
    void: int = 0
    image_digest: str = ""  # of the pixels, regardless of file format and tags
    target_digest: str = ""
    suspect: Suspect | None = None


def check(
    dataset: Dataset,
    splits: Sequence[str] | None,
    num_threads: int,
    progress: Callable[[int, int], None],
) -> CheckReport:
    """Check the files of a dataset.

    Args:
        splits: splits to read; None reads all except those that combine others.
        progress: called with the number of samples read and their total.

    Raises:
        UserError: if no split can be listed.
    """
    labels = dataset.labels(dataset.options)
    report = CheckReport(dataset.name, dataset.title, labels.names)
    by_split = _list(dataset, splits, report)
    samples = [(split, sample) for split, found in by_split.items() for sample in found]
    report.findings += [*_missing(samples), *_repeated(by_split)]
    present = [
        (split, sample) for split, sample in samples if all(f.is_file() for f in sample.files)
    ]
    references = _references(dataset, [sample for _, sample in present])
    reads: list[_Read] = []
    with ThreadPoolExecutor(num_threads) as pool:  # decoding releases the GIL
        jobs = enumerate(present)
        for read in pool.map(lambda job: _read(dataset, job[0], job[1][1], references), jobs):
            reads.append(read)
            progress(len(reads), len(present))
    report.splits = _splits(dataset, by_split, present, reads)
    for (split, _), read in zip(present, reads, strict=True):
        report.findings += [Finding(kind, message, split) for kind, message in read.findings]
    report.findings += _duplicates(present, reads)
    report.findings += _swapped(present, reads, report)
    if "split not listed" not in {finding.kind for finding in report.findings}:
        report.findings += [
            Finding("extra file", f"{file} belongs to no split.") for file in dataset.unlisted()
        ]
        beside = dataset.lies_beside()
        report.notes += [f"Beside the samples, and in no split: {beside}."] if beside else []
    for mask, images in dataset.shared_masks().items():
        text = f"{mask} is the mask of {listed(images, FILES_SHOWN)}."
        report.findings.append(Finding("shared mask", text))
    return report


def _list(
    dataset: Dataset, asked: Sequence[str] | None, report: CheckReport
) -> dict[str, Sequence[Sample]]:
    """Return the samples of each split; missing splits become findings or notes."""
    names = asked or [split for split in dataset.splits if split not in dataset.unions]
    by_split: dict[str, Sequence[Sample]] = {}
    faults: list[str] = []
    for split in dict.fromkeys(part for name in names for part in dataset.unions.get(name, [name])):
        if split in dataset.withheld:
            report.findings.append(Finding("withheld split", dataset.withheld[split], split))
            continue
        official = dataset.expected(split)
        try:
            by_split[split] = dataset.listed(split)
        except UserError as error:
            faults.append(str(error))
            if official is not None or asked is not None:
                report.findings.append(Finding("split not listed", str(error), split))
            else:
                report.notes.append(f"There is no split {split!r}.")
            continue
        num = len(by_split[split])
        if num == 0:
            report.findings.append(Finding("empty split", "It has no images.", split))
        if official not in (None, num):
            accepted = getattr(dataset.options, "partial", False)
            text = f"{num} images; the official split has {official}"
            if accepted:
                report.notes.append(f"{split}: {text} (accepted by partial: true).")
            else:
                text = f"{text}. Set partial: true to accept this (--set partial=true)."
                report.findings.append(Finding("split size", text, split))
    if not by_split and faults:
        raise UserError(faults[0])
    return by_split


def _missing(samples: Iterable[tuple[str, Sample]]) -> Iterator[Finding]:
    for split, sample in samples:
        for file in sample.files:
            if not file.is_file():
                yield Finding("missing file", f"No file {file}.", split)


def _repeated(by_split: dict[str, Sequence[Sample]]) -> Iterator[Finding]:
    for split, samples in by_split.items():
        seen: set[str] = set()
        for sample in samples:
            if sample.id in seen:
                yield Finding("listed twice", f"{sample.id} is listed twice.", split)
            seen.add(sample.id)


def _references(dataset: Dataset, samples: Sequence[Sample]) -> list[NDArray[np.uint8]]:
    """Return some readable targets, evenly spread."""
    chosen = sorted({i * len(samples) // NUM_REFERENCES for i in range(NUM_REFERENCES)})
    found = []
    for i in chosen if samples else ():
        with suppress(*USER_CODE_ERRORS, UserError):
            found.append(dataset.read_target(samples[i]))
    return found


def _read(
    dataset: Dataset, index: int, sample: Sample, references: Sequence[NDArray[np.uint8]]
) -> _Read:
    """Read a sample's image and target separately, to find the faults of both."""
    findings: list[tuple[str, str]] = []
    image, target = (
        _try(dataset, sample, read, findings) for read in (dataset.read_image, dataset.read_target)
    )
    image_digest = _digest(image) if isinstance(image, np.ndarray) else ""
    if target is None:
        return _Read(tuple(findings), image_digest=image_digest)
    fits = image is not None and _holds(dataset, sample, image, target, findings)
    if not isinstance(target, np.ndarray) or target.dtype != np.uint8 or target.ndim != 2:
        return _Read(tuple(findings), image_digest=image_digest)
    counts = np.bincount(target.ravel(), minlength=256)
    void, pixels = int(counts[IGNORE_INDEX]), counts[: len(dataset.labels(dataset.options).names)]
    if void == target.size:
        findings.append(("all-void mask", f"{sample.mask or sample.id} has only void pixels."))
    trivial = np.count_nonzero(pixels) < 2
    target_digest = "" if trivial else _digest(target)
    suspect = None
    if image is not None and fits:
        suspect = _suspect(index, image, target, references)
    return _Read(tuple(findings), pixels, void, image_digest, target_digest, suspect)


def _digest(pixels: NDArray[np.uint8]) -> str:
    content = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16)
    return f"{pixels.shape} {content.hexdigest()}"


def _holds(
    dataset: Dataset,
    sample: Sample,
    image: object,
    target: object,
    findings: list[tuple[str, str]],
) -> bool:
    """Check a pair, which can be anything if it comes from a user's own dataset."""
    try:
        dataset.check_pair(sample, image, target)
    except (FileFault, *USER_CODE_ERRORS) as error:
        kind = error.kind if isinstance(error, FileFault) else "wrong sample"
        findings.append((kind, str(error)))
        return False
    return True


def _try(
    dataset: Dataset,
    sample: Sample,
    read: Callable[[Sample], NDArray[np.uint8]],
    findings: list[tuple[str, str]],
) -> NDArray[np.uint8] | None:
    try:
        return read(sample)
    except FileFault as fault:
        findings.append((fault.kind, str(fault)))
    except USER_CODE_ERRORS as error:
        text = f"{dataset.name}, sample {sample.id!r}: {type(error).__name__}: {error}"
        findings.append(("wrong sample", text))
    except UserError as error:
        findings.append(("wrong sample", str(error)))
    return None


def _suspect(
    index: int,
    image: NDArray[np.uint8],
    target: NDArray[np.uint8],
    references: Sequence[NDArray[np.uint8]],
) -> Suspect | None:
    """Return a pair with a low fit as a suspect; None for a pair that fits."""
    size = (target.shape[0], target.shape[1])
    look, shape = look_of(image), shape_of(target)
    by_chance = chance(look, (labels_of(one, small(size)) for one in references))
    found = fit(look, shape, by_chance)
    return Suspect(index, size, look, shape, by_chance, found) if found < LOW_FIT else None


def _splits(
    dataset: Dataset,
    by_split: dict[str, Sequence[Sample]],
    present: Sequence[tuple[str, Sample]],
    reads: Sequence[_Read],
) -> list[Split]:
    num_classes = len(dataset.labels(dataset.options).names)
    splits = {
        name: Split(
            name,
            len(samples),
            dataset.expected(name),
            np.zeros(num_classes, np.int64),
            np.zeros(num_classes, np.int64),
        )
        for name, samples in by_split.items()
    }
    for (name, _), read in zip(present, reads, strict=True):
        if read.pixels is not None:
            splits[name].pixels += read.pixels
            splits[name].images += read.pixels > 0
            splits[name].void += read.void
    return list(splits.values())


def _duplicates(present: Sequence[tuple[str, Sample]], reads: Sequence[_Read]) -> Iterator[Finding]:
    """Find images with equal pixels, within a split and across splits."""
    for indices in _equal([read.image_digest for read in reads]):
        places = dict.fromkeys(
            (present[i][0], present[i][1].image or present[i][1].id) for i in indices
        )
        if len(places) < 2:
            continue  # one image that is listed twice
        between = len({split for split, _ in places}) > 1
        kind = "duplicate across splits" if between else "duplicate image"
        images = [f"{image} ({split})" for split, image in places]
        yield Finding(kind, f"Same pixels: {listed(images, FILES_SHOWN)}.", present[indices[0]][0])


def _equal(digests: Sequence[str]) -> list[list[int]]:
    """Return groups of two or more indices with equal digests, ignoring empty ones."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        if digest:
            groups[digest].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _swapped(
    present: Sequence[tuple[str, Sample]], reads: Sequence[_Read], report: CheckReport
) -> Iterator[Finding]:
    """Find masks that belong to other images: by their names, their content or their fit."""
    own = {sample.image.stem for _, sample in present if sample.image is not None}
    for split, sample in present:
        if sample.image is None or sample.mask is None:
            continue
        if sample.mask.stem != sample.image.stem and sample.mask.stem in own:
            text = f"{sample.image} is paired with {sample.mask}, which has another image's name."
            yield Finding("swapped mask", text, split)
    for indices in _equal([read.target_digest for read in reads]):
        if len({present[i][1].image for i in indices}) > 1:
            masks = [str(present[i][1].mask or present[i][1].id) for i in indices]
            yield Finding(
                "same mask", f"Different images have the same mask: {listed(masks, FILES_SHOWN)}."
            )
    suspects = [read.suspect for read in reads if read.suspect is not None]
    if len(suspects) > max(MANY_SUSPECTS * len(reads), 20):
        report.notes.append(
            f"{len(suspects)} of {len(reads)} masks fit the edges and colours of their images "
            "badly; they may be shifted or paired wrongly. Look at them with bench data show."
        )
    if len(suspects) > MOST_SUSPECTS:
        return
    for one, other in exchanged(suspects):
        (split, first), (_, second) = present[one], present[other]
        text = (
            f"{first.mask or first.id} and {second.mask or second.id} seem to be "
            "swapped: each fits the other's image far better."
        )
        yield Finding("swapped mask", text, split)
