"""The columns that a table can show: name in suites and frames, header, unit and format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """How one figure of a record is shown."""

    header: str
    of: Literal["case", "evaluation"]
    digits: int
    scale: float = 1.0
    unit: str = ""
    better: Literal["higher", "lower", None] = None

    @property
    def title(self) -> str:
        """The header with its unit, as tables print it."""
        return f"{self.header} ({self.unit})" if self.unit else self.header


def _score(header: str) -> Column:
    return Column(header, "evaluation", digits=2, scale=100, unit="%", better="higher")


SCORES = {
    "miou": _score("mIoU"),
    "pixel_accuracy": _score("Pixel acc."),
    "mean_pixel_accuracy": _score("Mean pixel acc."),
    "dice": _score("Dice"),
    "f1": _score("F1"),
    "precision": _score("Precision"),
    "sensitivity": _score("Sensitivity"),
    "specificity": _score("Specificity"),
    "fw_iou": _score("FW IoU"),
    "loss": Column("Loss", "evaluation", digits=4, better="lower"),
}


@dataclass(frozen=True)
class Convention:
    """How a score is computed from the pixel counts of many images; papers differ in this.

    header: the header of its column.
    of: the mean IoU over classes, or the share of correctly predicted pixels.
    over: what is pooled for one score; the scores of images or batches are then averaged.
    absent: how a class counts that is in neither truth nor prediction.
    void: whether void pixels are excluded, or count as background that can be predicted wrongly.
    without: a class that is left out of the mean.
    """

    header: str
    of: Literal["iou", "accuracy"] = "iou"
    over: Literal["split", "image", "batch"] = "split"
    absent: Literal["left out", "0"] = "left out"
    void: Literal["excluded", "background"] = "excluded"
    without: str | None = None


BACKGROUND, UNLABELED = "background", "unlabeled"
CONVENTIONS: Mapping[str, Convention] = {
    "miou_absent_0": Convention("mIoU, absent as 0", absent="0"),
    "miou_no_background": Convention("mIoU, no background", without=BACKGROUND),
    "miou_no_unlabeled": Convention("mIoU, no unlabeled", without=UNLABELED),
    "miou_void_background": Convention("mIoU, void as background", void="background"),
    "miou_image": Convention("mIoU of images", over="image"),
    "miou_batch": Convention("mIoU of batches", over="batch"),
    "miou_image_absent_0_void_background": Convention(
        "mIoU of images, absent as 0, void as background",
        over="image",
        absent="0",
        void="background",
    ),  # fcn-resnet50-voc2007, section 7.4
    "miou_batch_void_background": Convention(
        "mIoU of batches, void as background", over="batch", void="background"
    ),  # darrennet-voc2007: scikit-learn's macro average of each batch
    "pixel_accuracy_void_background": Convention(
        "Pixel acc., void as background", of="accuracy", void="background"
    ),
}

COLUMNS = (
    SCORES
    | {name: _score(one.header) for name, one in CONVENTIONS.items()}
    | {
        "num_params": Column("Params", "case", 2, 1e-6, "M", "lower"),
        "num_trainable": Column("Trainable", "case", 2, 1e-6, "M"),
        "num_unreached": Column("No gradient", "case", 2, 1e-6, "M"),
        "model_mb": Column("Model size", "case", 2, unit="MB", better="lower"),
        "checkpoint_mb": Column("Checkpoint", "case", 2, unit="MB"),
        "gmacs": Column("MACs", "case", 2, unit="G", better="lower"),
        "epoch_s": Column("Time/epoch", "case", 2, unit="s", better="lower"),
        "images_per_s": Column("Speed", "case", 1, unit="img/s", better="higher"),
        "tflops": Column("Achieved", "case", 3, unit="TFLOP/s", better="higher"),
        "mfu": Column("MFU", "case", 1, 100, "%", "higher"),
        "data_wait_share": Column("Data wait", "case", 1, 100, "%", "lower"),
        "latency_p50_ms": Column("Latency p50", "case", 1, unit="ms", better="lower"),
        "latency_p95_ms": Column("Latency p95", "case", 1, unit="ms", better="lower"),
        "inference_images_per_s": Column("Inference", "case", 1, unit="img/s", better="higher"),
        "inference_tflops": Column("Achieved", "case", 3, unit="TFLOP/s", better="higher"),
        "inference_mfu": Column("MFU", "case", 1, 100, "%", "higher"),
        "peak_memory_mib": Column("Peak memory", "case", 0, unit="MiB", better="lower"),
    }
)

IOU = "iou/"  # prefix of a class name


def column(name: str) -> Column:
    """Return a column by its name; iou/NAME is the IoU of a class."""
    return _score(f"{name.removeprefix(IOU)} IoU") if name.startswith(IOU) else COLUMNS[name]


def of_case(name: str) -> bool:
    """Return whether a column belongs to a case rather than to one of its evaluations."""
    return column(name).of == "case"
