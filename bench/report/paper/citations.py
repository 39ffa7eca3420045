"""What a paper cites for its datasets and models: BibTeX keys and entries.

The entries of models are in references.bib; those of datasets are in the dataset classes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from bench.datasets.registry import find
from bench.errors import UserError
from bench.suite.case import Case
from bench.suite.model import ModelSpec

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
ENTRY = re.compile(r"@\w+\s*\{\s*([^\s,{}]+)\s*,")

# Not here, because only student reports describe them: DarrenNet, RRCNN-FCN, SimplifiedUNet and
# the transposed convolutions of ResNet-FCN.
CUSTOM = {
    "deeplabv3_deconv": "chen2017rethinking",
    "enet": "paszke2016enet",
    "erfnet": "romera2018erfnet",
    "fcn": "long2015fully",
    "fcn16s": "long2015fully",
    "fcn32s": "long2015fully",
    "fcn8s": "long2015fully",
    "pspnet": "zhao2017pyramid",
    "r2unet": "alom2018recurrent",
    "unet": "ronneberger2015unet",
    "unet_valid": "ronneberger2015unet",
}
CUSTOM_ENCODERS = {  # the defaults, if the suite names no other
    "deeplabv3_deconv": "resnet101",
    "fcn16s": "vgg16",
    "fcn32s": "vgg16",
    "fcn8s": "vgg16",
    "pspnet": "resnet50s",
    "resnet_fcn": "resnet50",
}
CUSTOM_LIBRARIES = {"deeplabv3_deconv": "torchvision", "pspnet": "timm", "resnet_fcn": "timm"}
SMP = {
    "deeplabv3": "chen2017rethinking",
    "deeplabv3plus": "chen2018encoder",
    "dpt": "ranftl2021vision",
    "fpn": "lin2017feature",
    "linknet": "chaurasia2017linknet",
    "manet": "fan2020manet",
    "pan": "li2018pyramid",
    "pspnet": "zhao2017pyramid",
    "segformer": "xie2021segformer",
    "unet": "ronneberger2015unet",
    "unetplusplus": "zhou2018unetplusplus",
    "upernet": "xiao2018unified",
}
TORCHVISION = {  # by the part of its names before the backbone
    "deeplabv3": "chen2017rethinking",
    "fcn": "long2015fully",
    "lraspp": "howard2019searching",
}
TIMM_HEAD = "long2015fully"  # the head of torchvision's FCN
LIBRARIES = {
    "smp": "iakubovskii2019segmentation",
    "timm": "wightman2019timm",
    "torchvision": "torchvision2016",
}

ENCODER_MARKS = re.compile(r"^(tu-|timm-)?(tf_|legacy_)?")  # origin, before the family
ENCODERS = {  # by the beginning of the name; the longest match counts
    "beit_": "bao2022beit",
    "beitv2_": "peng2022beit",
    "caformer_": "yu2024metaformer",
    "cait_": "touvron2021going",
    "coat_": "xu2021coscale",
    "coatnet_": "dai2021coatnet",
    "convformer_": "yu2024metaformer",
    "convnext_": "liu2022convnet",
    "convnextv2_": "woo2023convnextv2",
    "cs3": "wang2020cspnet",
    "cspdarknet": "wang2020cspnet",
    "cspresnet": "wang2020cspnet",
    "cspresnext": "wang2020cspnet",
    "darknet53": "redmon2018yolov3",
    "davit_": "ding2022davit",
    "deit3_": "touvron2022deit",
    "deit_": "touvron2021training",
    "densenet": "huang2017densely",
    "dla": "yu2018deep",
    "dm_nfnet_": "brock2021high",
    "dpn": "chen2017dual",
    "eca_nfnet_": "brock2021high",
    "ecaresnet": "wang2020eca",
    "ecaresnext": "wang2020eca",
    "efficientformer_": "li2022efficientformer",
    "efficientformerv2_": "li2023rethinking",
    "efficientnet": "tan2019efficientnet",
    "efficientnetv2_": "tan2021efficientnetv2",
    "efficientvit_b": "cai2023efficientvit",
    "efficientvit_l": "cai2023efficientvit",
    "efficientvit_m": "liu2023efficientvit",
    "ese_vovnet": "lee2020centermask",
    "eva02_": "fang2024eva",
    "eva_": "fang2023eva",
    "fasternet_": "chen2023run",
    "fastvit_": "vasu2023fastvit",
    "ghostnet_": "han2020ghostnet",
    "hiera_": "ryali2023hiera",
    "hieradet_": "ravi2024sam",
    "hrnet_": "wang2021deep",
    "inception_next_": "yu2024inceptionnext",
    "inception_resnet_v2": "szegedy2017inception",
    "inception_v3": "szegedy2016rethinking",
    "inception_v4": "szegedy2017inception",
    "inceptionresnetv2": "szegedy2017inception",
    "inceptionv4": "szegedy2017inception",
    "levit_": "graham2021levit",
    "maxvit_": "tu2022maxvit",
    "mit_b": "xie2021segformer",
    "mixnet_": "tan2019mixconv",
    "mnasnet_": "tan2019mnasnet",
    "mobilenet_v2": "sandler2018mobilenetv2",
    "mobilenet_v3": "howard2019searching",
    "mobilenetv1_": "howard2017mobilenets",
    "mobilenetv2_": "sandler2018mobilenetv2",
    "mobilenetv3_": "howard2019searching",
    "mobilenetv4_": "qin2024mobilenetv4",
    "mobileone_": "vasu2023mobileone",
    "mobilevit_": "mehta2022mobilevit",
    "mobilevitv2_": "mehta2023separable",
    "mvitv2_": "li2022mvitv2",
    "nasnet": "zoph2018learning",
    "nf_": "brock2021characterizing",
    "nfnet_": "brock2021high",
    "pit_": "heo2021rethinking",
    "pnasnet": "liu2018progressive",
    "poolformer_": "yu2022metaformer",
    "poolformerv2_": "yu2024metaformer",
    "pvt_v2_": "wang2022pvt",
    "regnetx_": "radosavovic2020designing",
    "regnety_": "radosavovic2020designing",
    "repvgg_": "ding2021repvgg",
    "repvit_": "wang2024repvit",
    "res2net": "gao2021res2net",
    "res2next": "gao2021res2net",
    "resnest": "zhang2022resnest",
    "resnet": "he2016deep",
    "resnetrs": "bello2021revisiting",
    "resnetv2_": "he2016identity",
    "resnext": "xie2017aggregated",
    "sam2_": "ravi2024sam",
    "samvit_": "kirillov2023segment",
    "se_resnet": "hu2018squeeze",
    "se_resnext": "hu2018squeeze",
    "semnasnet_": "tan2019mnasnet",
    "senet": "hu2018squeeze",
    "seresnet": "hu2018squeeze",
    "seresnext": "hu2018squeeze",
    "skresnet": "li2019selective",
    "skresnext": "li2019selective",
    "swin_": "liu2021swin",
    "swinv2_": "liu2022swin",
    "tiny_vit_": "wu2022tinyvit",
    "twins_": "chu2021twins",
    "vgg": "simonyan2015very",
    "vit_": "dosovitskiy2021image",
    "vovnet": "lee2019energy",
    "wide_resnet": "zagoruyko2016wide",
    "xception": "chollet2017xception",
    "xcit_": "elnouby2021xcit",
}


def keys(spec: ModelSpec) -> tuple[str, ...]:
    """Return the BibTeX keys of a model: its architecture, its encoder and their libraries.

    Names that are in no table have no key, nor has a user's own network.
    """
    if ":" in spec.arch:
        return ()
    kind, _, name = spec.arch.partition("/")
    architecture, encoder = None, spec.encoder
    libraries = [kind]
    if kind == "custom":
        architecture, encoder = CUSTOM.get(name), encoder or CUSTOM_ENCODERS.get(name)
        libraries = [CUSTOM_LIBRARIES.get(name, "")]
    elif kind == "smp":
        architecture = SMP.get(name)
        if encoder and encoder.startswith(("tu-", "timm-")):
            libraries.append("timm")
    elif kind == "timm":
        architecture, encoder = TIMM_HEAD, name
    elif kind == "torchvision":
        head, _, encoder = name.partition("_")
        architecture = TORCHVISION.get(head)
    found = [architecture, _encoder_key(encoder or ""), *map(LIBRARIES.get, libraries)]
    return tuple(dict.fromkeys(key for key in found if key))


def dataset_keys(name: str, options: Mapping[str, Any] = NO_OPTIONS) -> tuple[str, ...]:
    """Return the BibTeX keys in a dataset's citation.

    Args:
        name: as in a suite.
        options: of the dataset in the suite; the citation of a `folder` dataset is one of them.
    """
    return tuple(key for key, _ in _entries(_citation(name, options)))


def bibliography(cases: Sequence[Case]) -> str:
    """Return a .bib file: the entries of the datasets, then of the models, in order of use.

    Each key occurs once; if a dataset and a model share it, the dataset's entry is used. Returns ""
    if there is nothing to cite.
    """
    texts: dict[str, str] = {}  # by lower-case key, because BibTeX ignores case
    for case in cases:
        for key, text in _entries(_citation(case.dataset.name, case.dataset.options)):
            texts.setdefault(key.lower(), text)
    for case in cases:
        for key in keys(case.model):
            texts.setdefault(key.lower(), references()[key])
    return "\n\n".join(texts.values()) + "\n" if texts else ""


@cache
def references() -> Mapping[str, str]:
    """Return the entries of references.bib, by key."""
    text = files(__package__).joinpath("references.bib").read_text(encoding="utf-8")
    return MappingProxyType(dict(_entries(text)))


def _encoder_key(name: str) -> str | None:
    family = ENCODER_MARKS.sub("", name)
    fitting = [prefix for prefix in ENCODERS if family.startswith(prefix)]
    return ENCODERS[max(fitting, key=len)] if fitting else None


def _citation(name: str, options: Mapping[str, Any]) -> str:
    """Return the BibTeX of a dataset, or "" if it has none or its citation is plain text."""
    text = str(options.get("citation") or _citation_of(name)).strip()
    return text if text.startswith("@") else ""


def _citation_of(name: str) -> str:
    """Return the citation of a dataset, or "" if its class cannot be imported."""
    try:
        return find(name).citation
    except UserError:
        return ""


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Split BibTeX into keys and entries; entries whose braces do not match are skipped."""
    position = 0
    while match := ENTRY.search(text, position):
        end = _closing(text, text.index("{", match.start()))
        position = end or match.end()
        if end:
            yield match[1], text[match.start() : end]


def _closing(text: str, start: int) -> int | None:
    """Return the position after the brace that closes the one at `start`; None if none does.

    Escaped braces count too, as in BibTeX.
    """
    depth = 0
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position + 1
    return None
