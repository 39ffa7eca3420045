import math
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from conftest import ROOT
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from bench.errors import UserError
from bench.records.history import read_history
from bench.report.paper.curve_data import Curve, Training, mean_of, read_training
from bench.report.paper.curves import (
    LEGEND_LETTERS,
    MODEL_WIDTH,
    NOT_MEASURED,
    OVERLAY_WIDTH,
    QUANTITIES,
    SEEDS_NOTE,
    model_figure,
    overlay_figure,
    save,
    style_of,
)

NAN = math.nan
PUBLISHED = sorted((ROOT / "results" / "published" / "camvid_small").glob("*/history.csv"))
NASTY = [
    "$x$_a & <b> \\frac",
    "_hidden",
    "",
    "a\\$b$",
    "$\\undefined{$",
    "100% #1 ~^{}",
    "中文 \x00\t\n x",
    "\udc80\u202e\U00020000",
    "deeplabv3plus_resnet101_os16_pretrained_imagenet_auxhead_v2",
    "A model with a name that goes on and on to some sixty letters",
    "W" * 60,
    "x",
]


def history(
    label: str = "a",
    num_epochs: int = 6,
    every: int = 2,
    shift: float = 0.0,
    train_miou: bool = True,
) -> Training:
    """A history with falling loss and rising mIoU, validated every few epochs."""
    epochs = range(1, num_epochs + 1)
    scored = [epoch % every == 0 for epoch in epochs]
    return Training(
        label,
        tuple(epochs),
        {
            "loss": tuple(1 / epoch + shift for epoch in epochs),
            "select_loss": tuple(
                2 / e + shift if s else NAN for e, s in zip(epochs, scored, strict=True)
            ),
            "train_miou": tuple(0.6 - 0.5 / e if train_miou else NAN for e in epochs),
            "select_miou": tuple(
                0.5 - 0.4 / e if s else NAN for e, s in zip(epochs, scored, strict=True)
            ),
        },
    )


def unmeasured(label: str = "a", num_epochs: int = 3) -> Training:
    epochs = tuple(range(1, num_epochs + 1))
    return Training(label, epochs, dict.fromkeys(QUANTITIES, (NAN,) * num_epochs))


def lines(figure: Figure, panel: int) -> list[Line2D]:
    return list(figure.axes[panel].get_lines())


def points(line: Line2D) -> list[tuple[float, float]]:
    return [(x, y) for x, y in np.asarray(line.get_xydata()).tolist()]


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def test_reads_a_history(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text(
        "epoch,lr,loss,train_miou,warm_up,select_miou,select_loss\n"
        "1,0.1,2.5,0.25,True,,\n"
        "2,0.1,1.5,,False,0.5,inf\n"
    )
    found = read_training(file, "A")
    assert (found.label, found.epochs) == ("A", (1, 2))
    assert found.series["loss"] == (2.5, 1.5)
    assert found.series["train_miou"] == pytest.approx((0.25, NAN), nan_ok=True)
    assert found.series["select_miou"] == pytest.approx((NAN, 0.5), nan_ok=True)
    assert found.series["select_loss"] == pytest.approx((NAN, NAN), nan_ok=True)


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.parent.name)
def test_reads_published_histories(file: Path) -> None:
    found = read_training(file, "A")
    assert found.epochs == tuple(range(1, 11))
    assert not any(map(math.isnan, found.series["loss"]))
    assert [math.isnan(v) for v in found.series["select_miou"]] == [True, False] * 5


def test_an_old_file_has_no_training_miou(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_bytes(b"\xef\xbb\xbfepoch,loss\r\n1,2.5\r\n\r\n")  # as saved by a spreadsheet
    found = read_training(file, "A")
    assert found.series["loss"] == (2.5,)
    assert all(math.isnan(found.series[name][0]) for name in QUANTITIES if name != "loss")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column epoch"),
        (b"\n\n", "no column epoch"),
        (b"step,loss\n1,2\n", "no column epoch"),
        (b"epoch,loss\n", "has no rows"),
        (b"epoch,loss,lr\n1,2,3\n2,1", "row 2 has 2 cells, not 3"),
        (b"epoch,loss\n1,2,3\n", "row 1 has 3 cells, not 2"),
        (b"epoch,loss\n1.0,2\n", "row 1 has epoch '1.0'"),
        (b"epoch,loss\n1,low\n", "row 1, column loss has 'low'"),
        (b"epoch,loss\none,2\n", "row 1, column epoch has 'one'"),
        (b"epoch,loss\n,2\n", "row 1 has epoch ''"),
        (b"epoch,loss\n1.5,2\n", "row 1 has epoch '1.5'"),
        (b"epoch,loss\n0,2\n", "row 1 has epoch '0'"),
        (b"epoch,loss\n1,2\n1,2\n", "row 2 has epoch '1'"),
        (b"epoch,loss\n" + b"9" * 400 + b",2\n", "row 1 has epoch '99999"),
        (b"epoch,loss\n1,\x002\n", "row 1, column loss has"),
        (bytes(range(256)) * 8, "not CSV in UTF-8"),
        (b"\x00" * 64, "no column epoch"),
        (b'epoch,loss\n1,"' + b"a" * 200_000, "not CSV in UTF-8"),
    ],
)
def test_files_that_are_not_histories_are_rejected(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "history.csv"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_training(file, "A")
    assert str(file) in str(caught.value)


def test_no_file_means_no_training(tmp_path: Path) -> None:
    assert read_training(tmp_path / "missing.csv", "A") is None
    with pytest.raises(UserError, match="Cannot read"):
        read_training(tmp_path, "A")


def test_mean_over_seeds() -> None:
    def seed(loss: tuple[float, ...], miou: tuple[float, ...]) -> Training:
        series = {"loss": loss, "select_miou": miou}
        nothing = dict.fromkeys(QUANTITIES, (NAN,) * len(loss))
        return Training("A", tuple(range(1, len(loss) + 1)), nothing | series)

    curve = mean_of(
        [
            seed((4.0, 2.0, 1.0), (NAN, 0.5, NAN)),
            seed((2.0, 4.0), (0.1, 0.25)),  # stopped early
            seed((3.0, 0.0, 1.0, 1.0), (0.1, 0.75, NAN, 0.9)),
        ]
    )
    assert (curve.label, curve.num_seeds, curve.epochs) == ("A", 3, (1, 2))
    loss, miou = curve.series["loss"], curve.series["select_miou"]
    assert (loss.mean, loss.low, loss.high) == ((3.0, 2.0), (2.0, 0.0), (4.0, 4.0))
    for found, expected in ((miou.mean, 0.5), (miou.low, 0.25), (miou.high, 0.75)):
        assert found == pytest.approx((NAN, expected), nan_ok=True)
    assert all(map(math.isnan, curve.series["train_miou"].mean))


def test_model_figure_shows_training_and_validation() -> None:
    figure = model_figure(mean_of([history("My model", num_epochs=4)]))
    assert [axes.get_xlabel() for axes in figure.axes] == ["Epoch", "Epoch"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss", "mIoU (%)"]
    assert figure.get_suptitle() == "My model"
    assert figure.get_figwidth() == MODEL_WIDTH
    assert legend_texts(figure) == ["Training", "Validation"]
    for panel in (0, 1):
        training, validation = lines(figure, panel)
        assert training.is_dashed()
        assert not validation.is_dashed()
        assert training.get_color() != validation.get_color()
        assert training.get_marker() != validation.get_marker()
    training, validation = lines(figure, 0)
    assert points(training) == [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    assert points(validation) == [(2, 1), (4, 1 / 2)], (
        "connected across epochs that were not measured"
    )
    training, validation = lines(figure, 1)
    assert points(validation) == [(2, pytest.approx(30)), (4, pytest.approx(40))]


def test_overlay_shows_every_model_in_every_panel() -> None:
    curves = [mean_of([history(name, shift=i)]) for i, name in enumerate("abc")]
    figure = overlay_figure(curves)
    titles = ["Training loss", "Validation loss", "Training mIoU", "Validation mIoU"]
    assert [axes.get_title() for axes in figure.axes] == titles
    assert [axes.get_ylabel() for axes in figure.axes] == ["Loss", "Loss", "mIoU (%)", "mIoU (%)"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"Epoch"}
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [len(lines(figure, panel)) for panel in range(4)] == [3] * 4
    assert legend_texts(figure) == ["a", "b", "c"]
    assert figure.get_figwidth() == OVERLAY_WIDTH
    assert points(lines(figure, 0)[2])[0] == (1, 3)


def test_panels_without_data_are_left_out() -> None:
    old = mean_of([history("old", train_miou=False)])
    titles = [axes.get_title() for axes in overlay_figure([old, old]).axes]
    assert titles == ["Training loss", "Validation loss", "Validation mIoU"]
    one_has_it = overlay_figure([old, mean_of([history("new")])])
    assert len(one_has_it.axes) == 4
    assert [len(points(line)) for line in lines(one_has_it, 2)] == [0, 6]


def test_seeds_have_a_band() -> None:
    curve = mean_of([history("a", num_epochs=4), history("a", num_epochs=4, shift=1)])
    for figure in (overlay_figure([curve]), model_figure(curve)):
        [band, *_] = figure.axes[0].collections
        low, high = band.get_datalim(figure.axes[0].transData).intervaly
        assert (low, high) == (1 / 4, 2)
        assert legend_texts(figure)[-1] == SEEDS_NOTE
        assert points(lines(figure, 0)[0])[0] == (1, 1.5)
    assert not model_figure(mean_of([history()])).axes[0].collections


@pytest.mark.parametrize(
    "curves",
    [
        [mean_of([unmeasured()])],
        [mean_of([history("b")]), mean_of([unmeasured()])],
        [mean_of([unmeasured("a", 1), history("a")])],
        [mean_of([history(num_epochs=1, every=1)] * 2)],
        [mean_of([history(num_epochs=1)])],
    ],
    ids=["unmeasured", "one unmeasured", "a seed unmeasured", "one epoch", "never validated"],
)
def test_histories_with_little_data_are_drawn(tmp_path: Path, curves: list[Curve]) -> None:
    for figure in (overlay_figure(curves), model_figure(curves[0])):
        save(figure, tmp_path / "figure.png")
        assert Image.open(tmp_path / "figure.png").convert("L").getextrema() == (0, 255)


def test_no_models_give_an_empty_figure(tmp_path: Path) -> None:
    save(overlay_figure([]), tmp_path / "none.pdf")
    assert (tmp_path / "none.pdf").read_bytes().startswith(b"%PDF")


def test_one_epoch_is_a_visible_point() -> None:
    for figure in (
        model_figure(mean_of([history(num_epochs=1, every=1)])),
        overlay_figure([mean_of([history(num_epochs=1, every=1)])] * 5),
    ):
        for axes in figure.axes:
            assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1]
            for line in axes.get_lines():
                assert len(points(line)) == 1
                assert line.get_markevery() == (0, 1)


def test_panels_without_measurements_say_so() -> None:
    figure = model_figure(mean_of([unmeasured()]))
    assert [axes.texts[0].get_text() for axes in figure.axes] == [NOT_MEASURED] * 2
    [axes] = overlay_figure([mean_of([unmeasured()])]).axes
    assert axes.texts[0].get_text() == NOT_MEASURED


def test_twelve_models_differ_without_colour() -> None:
    figure = overlay_figure([mean_of([history(f"m{i}")]) for i in range(12)])
    drawn = lines(figure, 0)
    looks = {(str(style_of(i).dashes), style_of(i).marker) for i in range(12)}
    assert len(looks) == 12
    assert [line.get_color() for line in drawn] == [style_of(i).colour for i in range(12)]
    assert [line.get_marker() for line in drawn] == [style_of(i).marker for i in range(12)]
    assert len({(style_of(i).colour, style_of(i).dashes) for i in range(35)}) == 35
    legend = figure.legends[0].get_lines()
    assert [line.get_marker() for line in legend] == [line.get_marker() for line in drawn]


def test_neighbours_differ_in_lightness() -> None:
    def grey(index: int) -> float:
        red, green, blue = matplotlib.colors.to_rgb(style_of(index).colour)
        return 0.299 * red + 0.587 * green + 0.114 * blue

    assert all(abs(grey(i) - grey(i + 1)) > 0.04 for i in range(7))


@pytest.mark.usefixtures("_only_dejavu")
def test_labels_are_text() -> None:
    curves = [mean_of([unmeasured(label)] * 2) for label in NASTY]
    figure = overlay_figure(curves)
    shown = legend_texts(figure)
    assert shown[:6] == NASTY[:6]
    assert shown[6] == r"\u4e2d\u6587 \x00 x", "characters that the font lacks are escaped"
    assert shown[7] == r"\udc80\u202e\U00020000"
    assert not any(text.get_parse_math() for text in figure.legends[0].get_texts())
    for label, text in zip(NASTY[8:], shown[8:-1], strict=True):
        assert max(map(len, text.split("\n"))) <= LEGEND_LETTERS
        assert text.replace("\n", "").replace(" ", "") == label.replace(" ", "")
    for curve in curves[:3]:
        figure = model_figure(curve)
        [title] = [text for text in figure.texts if text.get_text() == figure.get_suptitle()]
        assert not title.get_parse_math()


def test_mathtext_is_never_parsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("parsed as a formula")

    monkeypatch.setattr("matplotlib.mathtext.MathTextParser.parse", refuse)
    curve = mean_of([unmeasured(NASTY[0])])
    save(overlay_figure([curve]), tmp_path / "overlay.pdf")
    save(model_figure(curve), tmp_path / "model.png")
    assert (tmp_path / "overlay.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "histories",
    [[history(label, num_epochs=200) for label in NASTY], [unmeasured("W" * 60)] * 30],
    ids=["nasty", "thirty"],
)
def test_nothing_overlaps(histories: list[Training]) -> None:
    curves = [mean_of([history]) for history in histories]
    for figure in (overlay_figure(curves), model_figure(curves[-1])):
        FigureCanvasAgg(figure).draw()
        width, height = figure.get_size_inches() * figure.dpi
        legend = figure.legends[0].get_window_extent()
        assert legend.x0 >= 0
        assert legend.y0 >= 0
        assert legend.x1 <= width
        panels = [axes.get_tightbbox() for axes in figure.axes]
        assert not any(panel is None or panel.overlaps(legend) for panel in panels)
        assert all(a is b or not a.overlaps(b) for a in panels for b in panels if a and b)
        assert max(panel.y1 for panel in panels if panel) <= height
        assert all(axes.get_window_extent().height > figure.dpi for axes in figure.axes)


def draw(file: str) -> Figure:
    curves = [mean_of([history(name), history(name, shift=1)]) for name in NASTY[:3]]
    return model_figure(curves[0]) if file.startswith("model") else overlay_figure(curves)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves") / "made when saving"
    for file in ("overlay.png", "model.png", "model.pdf"):
        save(draw(file), folder / file)
    return folder


def test_pictures_fit_the_width_of_an_article(saved: Path) -> None:
    with Image.open(saved / "overlay.png") as overlay, Image.open(saved / "model.png") as model:
        assert (overlay.width, model.width) == (1300, 1100)  # 200 dpi
        assert "Software" not in overlay.info
    assert len(list(saved.iterdir())) == 3, "no other file is left"


def test_pdf_embeds_truetype_and_no_stamps(saved: Path) -> None:
    content = (saved / "model.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert not any(stamp in content for stamp in (b"CreationDate", b"Producer", b"Creator"))


@pytest.mark.parametrize("file", ["model.png", "model.pdf"])
def test_the_same_histories_give_the_same_bytes(tmp_path: Path, saved: Path, file: str) -> None:
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "pdf.fonttype": 3}):
        before = dict(matplotlib.rcParams)
        figure = draw(file)
        save(figure, tmp_path / file)
        assert dict(matplotlib.rcParams) == before, "the user's settings are unchanged"
    assert (tmp_path / file).read_bytes() == (saved / file).read_bytes()
    save(figure, tmp_path / file)
    assert (tmp_path / file).read_bytes() == (saved / file).read_bytes(), "saved again"


def test_another_process_gives_the_same_bytes(tmp_path: Path, saved: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; import test_curves as t; "
        "t.save(t.draw('model.pdf'), t.Path(sys.argv[1]))"
    )
    file = tmp_path / "model.pdf"
    folders = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
    env = os.environ | {"PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", code, str(file), *folders], check=True, env=env)
    assert file.read_bytes() == (saved / "model.pdf").read_bytes()


def test_columns_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text("epoch,loss,note\n1,2.5,a text\n")
    assert [dict(row) for row in read_history(file)] == [{"epoch": 1.0, "loss": 2.5}]
