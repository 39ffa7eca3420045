"""What a table can show: every column's name in suites and frames, header, unit and format."""

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
        """Header and unit, as a table prints them."""
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


CONVENTIONS = {  # of the same predictions; bench.conventions defines them
    "miou_absent_0": _score("mIoU, absent as 0"),
    "miou_no_background": _score("mIoU, no background"),
    "miou_no_unlabeled": _score("mIoU, no unlabeled"),
    "miou_void_background": _score("mIoU, void as background"),
    "miou_image": _score("mIoU of images"),
    "miou_batch": _score("mIoU of batches"),
    "miou_image_absent_0_void_background": _score(
        "mIoU of images, absent as 0, void as background"
    ),
    "miou_batch_void_background": _score("mIoU of batches, void as background"),
    "pixel_accuracy_void_background": _score("Pixel acc., void as background"),
}

COLUMNS = (
    SCORES
    | CONVENTIONS
    | {
        "num_params": Column("Params", "case", 2, 1e-6, "M", "lower"),
        "num_trainable": Column("Trainable", "case", 2, 1e-6, "M"),
        "num_unreached": Column("No gradient", "case", 2, 1e-6, "M"),
        "model_mb": Column("Model size", "case", 2, unit="MB", better="lower"),
        "checkpoint_mb": Column("Checkpoint", "case", 2, unit="MB"),
        "gmacs": Column("MACs", "case", 2, unit="G", better="lower"),
        "epoch_s": Column("Time/epoch", "case", 2, unit="s", better="lower"),
        "images_per_s": Column("Speed", "case", 1, unit="img/s", better="higher"),
        "data_wait_share": Column("Data wait", "case", 1, 100, "%", "lower"),
        "latency_p50_ms": Column("Latency p50", "case", 1, unit="ms", better="lower"),
        "latency_p95_ms": Column("Latency p95", "case", 1, unit="ms", better="lower"),
        "inference_images_per_s": Column("Inference", "case", 1, unit="img/s", better="higher"),
        "peak_memory_mib": Column("Peak memory", "case", 0, unit="MiB", better="lower"),
    }
)

IOU = "iou/"  # before the name of a class


def column(name: str) -> Column:
    """Return a column by its name, or that of a class's IoU by iou/NAME."""
    return _score(f"{name.removeprefix(IOU)} IoU") if name.startswith(IOU) else COLUMNS[name]


def of_case(name: str) -> bool:
    """Say whether a column is of a case, whatever it was scored on."""
    return column(name).of == "case"
