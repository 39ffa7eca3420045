import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from fixtures import SUITE, require_pdflatex

from bench.datasets.registry import DATASETS
from bench.datasets.shapes import Shapes
from bench.report.paper import citations
from bench.report.paper.citations import bibliography, dataset_keys, keys, references
from bench.suite import catalog
from bench.suite.case import Case
from bench.suite.expand import expand
from bench.suite.model import ModelSpec
from bench.suite.suite import Suite
from custom_models import ARCHITECTURES

OF_REPORTS = {"darrennet", "resnet_fcn", "rrcnn_fcn", "simplified_unet"}  # without a paper
TABLES = (
    citations.CUSTOM,
    citations.SMP,
    citations.TORCHVISION,
    citations.ENCODERS,
    citations.LIBRARIES,
)
OWN = "@misc{mine,\n  title = {My {\\'e}t{\\'e}}, year = {2026}\n}"
USED = {key for table in TABLES for key in table.values()} | {citations.TIMM_HEAD}
DOCUMENT = r"""\documentclass{article}
\begin{document}
\nocite{*}
\bibliographystyle{plain}
\bibliography{refs}
\end{document}
"""


class Worded(Shapes):
    citation = "our own"


class Cited(Shapes):
    citation = OWN + "\n@article{he2016deep, title = {Ours}}\n"


def cited(arch: str, **options: Any) -> tuple[str, ...]:
    return keys(ModelSpec.model_validate({"arch": arch} | options))


def cases(
    models: Mapping[str, Any], datasets: Mapping[str, Any], seeds: tuple[int, ...] = (0, 1)
) -> list[Case]:
    suite = {key: SUITE[key] for key in ("name", "recipe")}
    return expand(
        Suite.model_validate(suite | {"models": models, "datasets": datasets, "seeds": seeds})
    )


def in_order(text: str) -> list[str]:
    return re.findall(r"^@\w+\{([^,]+),", text, re.MULTILINE)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_custom_networks_are_cited_unless_only_reports_describe_them(name: str) -> None:
    assert (name in citations.CUSTOM) != (name in OF_REPORTS)


def test_the_encoders_of_custom_networks_are_their_defaults() -> None:
    for name in ARCHITECTURES:
        default = catalog.custom_options(name).get("encoder")
        if default is not None:
            assert repr(citations.CUSTOM_ENCODERS[name]) == default


@pytest.mark.parametrize("name", catalog.smp_architectures())
def test_smp_networks(name: str) -> None:
    library = citations.LIBRARIES["smp"]
    assert cited(f"smp/{name}") == (citations.SMP[name], "he2016deep", library)


@pytest.mark.parametrize("name", catalog.smp_encoders())
def test_smp_encoders(name: str) -> None:
    found = cited("smp/unet", encoder=name)
    libraries = ("smp", "timm") if name.startswith("timm-") else ("smp",)
    assert found[0] == "ronneberger2015unet"
    assert found[1] in citations.ENCODERS.values()
    assert found[2:] == tuple(citations.LIBRARIES[library] for library in libraries)


@pytest.mark.parametrize("name", catalog.torchvision_architectures())
def test_torchvision_networks(name: str) -> None:
    found = cited(f"torchvision/{name}")
    assert found[-1] == citations.LIBRARIES["torchvision"]
    assert found[0] == citations.TORCHVISION[name.split("_")[0]]
    backbone = "he2016deep" if "resnet" in name else "howard2019searching"
    assert set(found[:-1]) == {found[0], backbone}


@pytest.mark.parametrize(
    ("encoder", "key"),
    [
        ("tu-resnet50.a1_in1k", "he2016deep"),
        ("tu-resnetv2_50", "he2016identity"),
        ("tu-resnetrs50", "bello2021revisiting"),
        ("tu-legacy_seresnet50", "hu2018squeeze"),
        ("tu-tf_efficientnetv2_s", "tan2021efficientnetv2"),
        ("tu-tf_efficientnet_lite0", "tan2019efficientnet"),
        ("timm-tf_efficientnet_lite0", "tan2019efficientnet"),
        ("tu-efficientvit_b0", "cai2023efficientvit"),
        ("tu-efficientvit_m0", "liu2023efficientvit"),
        ("tu-convnextv2_tiny", "woo2023convnextv2"),
        ("tu-deit3_base_patch16_224", "touvron2022deit"),
        ("tu-beit3_base_patch16_224", None),
        ("tu-coatnext_nano_rw_224", None),
        ("tu-test_resnet", None),
    ],
)
def test_the_longest_beginning_of_a_name_wins(encoder: str, key: str | None) -> None:
    libraries = (citations.LIBRARIES["smp"], citations.LIBRARIES["timm"])
    assert cited("smp/fpn", encoder=encoder) == tuple(
        k for k in ("lin2017feature", key, *libraries) if k
    )


def test_every_prefix_matches_an_encoder() -> None:
    names = (
        *catalog.encoders(),
        *(n.partition("_")[2] for n in catalog.torchvision_architectures()),
    )
    families = {citations.ENCODER_MARKS.sub("", name) for name in names}
    for prefix in citations.ENCODERS:
        assert any(family.startswith(prefix) for family in families), prefix


@pytest.mark.parametrize(
    ("arch", "options", "expected"),
    [
        ("custom/enet", {}, ("paszke2016enet",)),
        ("custom/fcn8s", {}, ("long2015fully", "simonyan2015very")),
        ("custom/darrennet", {}, ()),
        ("custom/pspnet", {}, ("zhao2017pyramid", "he2016deep", "wightman2019timm")),
        ("custom/resnet_fcn", {}, ("he2016deep", "wightman2019timm")),
        (
            "custom/resnet_fcn",
            {"encoder": "resnext50_32x4d"},
            ("xie2017aggregated", "wightman2019timm"),
        ),
        ("timm/convnext_tiny", {}, ("long2015fully", "liu2022convnet", "wightman2019timm")),
        (
            "smp/segformer",
            {"encoder": "mit_b0"},
            ("xie2021segformer", "iakubovskii2019segmentation"),
        ),
        ("torchvision/lraspp_mobilenet_v3_large", {}, ("howard2019searching", "torchvision2016")),
        ("networks:build", {"encoder": "resnet50"}, ()),
        ("smp/new", {"encoder": "new"}, ("iakubovskii2019segmentation",)),
    ],
)
def test_keys_of_a_model(arch: str, options: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert cited(arch, **options) == expected


def test_tables_and_references_agree() -> None:
    assert set(references()) == USED


def test_an_entry_appears_once() -> None:
    text = files("bench.report.paper").joinpath("references.bib").read_text(encoding="utf-8")
    assert text.isascii()
    assert in_order(text) == list(references())
    assert "\n\n".join(references().values()) + "\n" == text
    eprints = re.findall(r"eprint = \{(.+?)\}", text)
    assert len(eprints) == len(set(eprints))


@pytest.mark.parametrize("key", references())
def test_an_entry_has_author_title_and_year(key: str) -> None:
    entry = references()[key]
    for field in ("author", "title", "year"):
        assert len(re.findall(rf"\b{field} = \{{", entry)) == 1
    year = re.search(r"year = \{(\d{4})\}", entry)
    assert year is not None
    assert year[1] in key
    preprint = re.search(r"arXiv preprint arXiv:([\d.]+)", entry)
    if preprint is not None:
        assert f"eprint = {{{preprint[1]}}}, archivePrefix = {{arXiv}}" in entry


@pytest.mark.parametrize("name", DATASETS)
def test_keys_of_datasets(name: str) -> None:
    found = dataset_keys(name)
    assert len(found) == DATASETS[name].citation.count("@")
    assert bool(found) == (name not in ("folder", "shapes"))


def test_keys_of_several_entries_and_of_plain_text() -> None:
    assert len(dataset_keys("voc2012_aug")) == 2
    assert dataset_keys(f"{__name__}:Cited") == ("mine", "he2016deep")
    assert dataset_keys(f"{__name__}:Worded") == ()
    assert dataset_keys("folder", {"citation": OWN}) == ("mine",)
    assert dataset_keys("folder", {"citation": "our own"}) == ()
    assert dataset_keys("folder", {"citation": f"Please cite {OWN}"}) == ()
    assert dataset_keys("folder", {"citation": "@misc{open, title = {"}) == ()


def test_a_bibliography_has_datasets_then_models_each_once() -> None:
    models = {"a": {"arch": "smp/unet"}, "b": {"arch": "custom/enet"}, "c": {"arch": "smp/fpn"}}
    datasets = {"aug": {"name": "voc2012_aug"}, "voc2012": {"name": "voc2012"}}
    text = bibliography(cases(models, datasets))
    assert in_order(text) == [
        *dataset_keys("voc2012_aug"),
        "ronneberger2015unet",
        "he2016deep",
        "iakubovskii2019segmentation",
        "paszke2016enet",
        "lin2017feature",
    ]
    assert text.endswith("}\n")
    assert all(entry.startswith("@") for entry in text.split("\n\n"))


def test_a_users_entry_replaces_the_one_with_the_same_key() -> None:
    models = {"a": {"arch": "smp/unet"}}
    text = bibliography(cases(models, {"own": {"name": f"{__name__}:Cited"}}))
    assert in_order(text) == [
        "mine",
        "he2016deep",
        "ronneberger2015unet",
        "iakubovskii2019segmentation",
    ]
    assert "@article{he2016deep, title = {Ours}}" in text
    assert OWN in text


def test_a_folder_has_its_citation_in_its_options() -> None:
    folder = {"name": "folder", "classes": ["a", "b"], "citation": OWN}
    assert bibliography(cases({"a": {"arch": "custom/darrennet"}}, {"own": folder})) == OWN + "\n"


@pytest.mark.parametrize("name", ["shapes", f"{__name__}:Worded"])
def test_nothing_to_cite(name: str) -> None:
    found = cases({"a": {"arch": "custom/darrennet"}}, {"data": {"name": name}})
    assert bibliography(found) == ""
    assert bibliography([]) == ""


def test_bibtex_accepts_every_entry(tmp_path: Path) -> None:
    require_pdflatex()
    if shutil.which("bibtex") is None:
        pytest.skip("needs bibtex (Debian: texlive-binaries)")
    own = {name: {"name": name} for name in DATASETS if dataset_keys(name)}
    of_data = bibliography(cases({"a": {"arch": "custom/darrennet"}}, own, (0,)))
    text = of_data + "\n" + "\n\n".join(references().values()) + "\n"
    (tmp_path / "refs.bib").write_text(text, encoding="ascii")
    (tmp_path / "t.tex").write_text(DOCUMENT)
    run(tmp_path, "pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex")
    output = run(tmp_path, "bibtex", "t") + (tmp_path / "t.blg").read_text()
    assert "Warning" not in output
    assert "error message" not in output
    items = re.findall(r"\\bibitem\{(.+?)\}", (tmp_path / "t.bbl").read_text())
    assert sorted(items) == sorted(in_order(text))
    run(tmp_path, "pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex")


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout
