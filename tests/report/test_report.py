"""The parts of a report other than tables: methods, citations, curves, web page."""

import re
import shutil
from pathlib import Path

import pytest
from fixtures import make_results, pdf_text, require_pdflatex

from bench.report.paper.methods import as_markdown, methods
from bench.report.report import report
from bench.report.write import write
from bench.suite.recipe import Recipe

HISTORY = "epoch,loss,train_miou,select_loss,select_miou\n1,2,0.1,,\n2,1.5,0.2,1.75,0.15\n"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = make_results(tmp_path)
    for record in folder.glob("*__[AB]__*/record.json"):
        (record.parent / "history.csv").write_text(HISTORY)
    return folder


def test_methods_describe_the_training(results: Path, tmp_path: Path) -> None:
    made = report([results], tmp_path)
    write(made, ["md", "latex"], tmp_path / "out")
    words = (tmp_path / "out/paper/methods.md").read_text()
    for part in (
        "Shapes",
        "A\\_1 [@long2015fully]",
        "[@paszke2016enet]",
        "randomly initialised",
        "All models are trained for 2 epochs with Adam (learning rate 0.001) and a constant",
        "batches of 8 images at their original size",
        "No data augmentation is used; the loss is cross-entropy.",
        "means and standard deviations over seeds 0 and 1",
        "CPU\\_1, 2 threads (fp32)",
    ):
        assert part in words, part
    assert "smp" not in words  # the failed case is left out
    bib = (tmp_path / "out/paper/references.bib").read_text()
    cited = re.findall(r"\\cite\{([^}]*)\}", (tmp_path / "out/paper/methods.tex").read_text())
    for key in ",".join(cited).split(","):
        assert f"{{{key}," in bib


def test_methods_compile(results: Path, tmp_path: Path) -> None:
    require_pdflatex()
    write(report([results], tmp_path), ["latex"], tmp_path / "out")
    words = (tmp_path / "out/paper/methods.tex").read_text()
    assert "Overfull \\hbox" not in pdf_text(words, tmp_path)


def test_curves_per_model_and_of_all_models(results: Path, tmp_path: Path) -> None:
    made = report([results], tmp_path)
    files = write(made, ["png", "pdf"], tmp_path / "out").files
    names = sorted(file.name for file in files)
    assert [name for name in names if name.endswith(".png")] == [
        "curves-A_1.png",
        "curves-script-50-x-b-c.png",
        "curves.png",
    ]
    assert (tmp_path / "out/paper/curves.pdf").read_bytes().startswith(b"%PDF")


def test_notes_name_a_broken_history(results: Path, tmp_path: Path) -> None:
    [broken, *_] = sorted(results.glob("*__A__*/history.csv"))
    broken.write_text("epoch,loss\n1")
    made = report([results], tmp_path)
    notes = list(made[0].notes)
    written = write(made, ["png", "html"], tmp_path / "out")
    assert any(str(broken) in note for note in written.notes)
    assert made[0].notes == notes
    assert str(broken) in (tmp_path / "out/paper/report.html").read_text()
    assert (tmp_path / "out/paper/curves.png").exists()


def test_the_page_has_all_tables_and_curves(results: Path, tmp_path: Path) -> None:
    made = report([results], tmp_path)
    write(made, ["html", "png"], tmp_path / "out")
    html = (tmp_path / "out/paper/report.html").read_text()
    assert "<script>" not in html
    assert html.count("<section") == len(made[0].tables) + 1
    assert "data:image/png;base64," in html
    assert html.count("<table>") == len(made[0].tables)
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)  # loads nothing from the network


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}},
            "SGD (learning rate 0.01, momentum 0.9, weight decay 0.0001)",
        ),
        ({"schedule": {"name": "poly", "power": 0.9}}, "the poly schedule (power 0.9)"),
        (
            {"schedule": {"name": "step", "every": 100, "gamma": 0.1}},
            "step decay (factor 0.1 every 100 epochs)",
        ),
        (
            {"checkpoint": "best", "patience": 30},
            "We keep the epoch with the best mIoU on the model-selection split and stop after 30 "
            "epochs without improvement.",
        ),
        ({"augment": [{"HorizontalFlip": {"p": 0.5}}]}, "The augmentation is horizontal flip;"),
        ({"epochs": 0}, "evaluated without training."),
        ({"size": {"longest": 400}}, "images resized to a longest side of 400 pixels."),
        ({"encoder_lr": 0.1}, "learning rate 0.001, 0.1 times that for the encoder"),
        (
            {"loss": {"name": "cross_entropy", "class_weights": "enet", "label_smoothing": 0.0}},
            "cross-entropy with classes weighted by 1 / ln(1.02 + class frequency)",
        ),
        (
            {"loss": {"name": "cross_entropy", "class_weights": "none", "label_smoothing": 0.1}},
            "the loss is cross-entropy with label smoothing 0.1.",
        ),
        ({"loss": {"name": "focal", "gamma": 1.5}}, "the loss is focal loss (gamma 1.5)."),
        (
            {"warmup": {"steps": 500}},
            "a constant learning rate with a linear warm-up of 500 steps",
        ),
        ({"clip_grad": 0.5}, "Gradients are clipped to a norm of 0.5."),
        (
            {"optimizer": {"name": "adamw", "amsgrad": True}, "decay": "weights"},
            "AdamW (learning rate 0.001, weight decay 0.01 except on biases and normalisation "
            "layers, AMSGrad)",
        ),
    ],
)
def test_recipes_in_words(
    results: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    [made] = report([results], tmp_path)
    recipe = Recipe.model_validate(made.cases[0].recipe.model_dump() | changes)
    cases = [case.model_copy(update={"recipe": recipe}) for case in made.cases]
    ids = {old.id: new.id for old, new in zip(made.cases, cases, strict=True)}
    rows = made.rows[made.rows["evaluation"].notna()]
    found = as_markdown(methods(cases, rows.assign(id=rows["id"].map(ids))))
    assert words in found.replace("\\", "")


def test_seeds_that_differ_by_model_are_not_listed(results: Path, tmp_path: Path) -> None:
    [made] = report([results], tmp_path)
    rows = made.rows[made.rows["evaluation"].notna()]
    fewer = rows[(rows["model"] != "A") | (rows["seed"] == 0)]
    assert len(fewer) < len(rows)
    found = as_markdown(methods(made.cases, fewer))
    assert "We report means over the seeds of each model; their number differs by model." in found
    assert "deviations" not in found


def test_a_note_is_printed_once(results: Path, tmp_path: Path) -> None:
    [folder, *_] = sorted(results.glob("*__A__*"))
    shutil.rmtree(folder)
    [made] = report([results], tmp_path)
    assert any("not finished" in note for note in made.notes)
    assert str(made).count("not finished") == 1


def test_two_suites_also_get_one_common_bibliography(results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "other" / "paper")
    made = report([tmp_path], tmp_path)
    files = write(made, ["latex"], tmp_path / "out").files
    assert len(set(files)) == len(files)
    assert {f.parent.name for f in files} == {"out", "paper", "paper-2"}
    assert (tmp_path / "out" / "references.bib").read_text().count("{long2015fully,") == 1
