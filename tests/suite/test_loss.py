from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from pydantic import ValidationError

from bench.datasets.class_weights import ClassCounts, class_weights
from bench.errors import UserError
from bench.suite import yaml_file
from bench.suite.case import canonical
from bench.suite.expand import expand
from bench.suite.json_schema import json_schema
from bench.suite.load import load
from bench.suite.loss import CrossEntropy, Dice, Focal, LossSpec, Sum, terms
from bench.suite.recipe import Recipe, change_recipe
from bench.training.losses import build_loss, mean, with_counted_weights

Write = Callable[..., Path]
COUNTS = ClassCounts(
    pixels=np.array([50, 30, 20]),
    image_pixels=np.array([100, 60, 100]),
    images=np.array([3, 2, 3]),
)
SUM = Sum(terms=(CrossEntropy(), Dice(weight=0.5)))
# Texts for `loss:` and what they mean.
FORMS: dict[str, LossSpec] = {
    "cross_entropy": CrossEntropy(),
    "focal": Focal(),
    "dice": Dice(),
    "{name: focal, gamma: 0.5, class_weights: inverse}": Focal(gamma=0.5, class_weights="inverse"),
    "{name: cross_entropy, label_smoothing: 0.1}": CrossEntropy(label_smoothing=0.1),
    "{name: cross_entropy, class_weights: [1, 2, 0]}": CrossEntropy(class_weights=(1, 2, 0)),
    "[cross_entropy, {name: dice, weight: 0.5}]": SUM,
    "[{name: cross_entropy}, {name: dice, weight: 0.5}]": SUM,
    "{name: sum, terms: [{name: cross_entropy}, {name: dice, weight: 0.5}]}": SUM,
    "[dice]": Sum(terms=(Dice(),)),
    "[dice, {name: focal, gamma: 1, weight: 3}, dice]": Sum(
        terms=(Dice(), Focal(gamma=1, weight=3), Dice())
    ),
}
# Invalid texts and their messages.
WRONG = [
    ("dise", "recipe.loss: Unknown loss 'dise'. Did you mean 'dice'?"),
    ("{name: dise}", "recipe.loss.name: Unknown loss 'dise'. Did you mean 'dice'?"),
    ("[dice, dise]", "recipe.loss.1: Unknown loss 'dise'. Did you mean 'dice'?"),
    ("[dice, {name: dise}]", "recipe.loss.1.name: Unknown loss 'dise'. Did you mean"),
    ("[dise]", "recipe.loss.0: Unknown loss 'dise'. Did you mean 'dice'?"),
    ("[dice, {name: focal, gama: 1}]", "loss.1.gama: Unknown key 'gama'. Did you mean 'gam"),
    ("[{name: focal, gama: 1}]", "loss.0.gama: Unknown key 'gama'. Did you mean 'gamma'"),
    ("[{name: dice, weight: 0}]", "loss.0.weight: Input should be greater than 0, not"),
    ("[{weight: 2}]", "recipe.loss.0: Give its name"),
    ("[{name: focal, class_weights: enett}]", "Did you mean 'enet'?"),
    ("[dice, {name: focal, class_weights: [0, 0]}]", "At least one class needs a weight"),
    ("[]", "recipe.loss: "),
    ("{name: dice, class_weights: enet}", "recipe.loss.class_weights: Unknown key"),
]


def suite(loss: str, block: str = "") -> str:
    return TINY + f"  loss: {loss}\n{block}"


def read(file: Path, *settings: str) -> LossSpec:
    [case] = expand(load(file, settings).suite)
    return case.recipe.loss


def case_id(file: Path) -> str:
    [case] = expand(load(file).suite)
    return case.id


def faults(file: Path, *settings: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(file, settings)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("text", "spec"), FORMS.items(), ids=FORMS)
def test_forms(write_suite: Write, text: str, spec: LossSpec) -> None:
    file = write_suite(suite(text))
    assert read(file) == spec
    jsonschema.validate(yaml_file.read(file).data, json_schema())
    given = yaml_file.parse_value(text)
    recipe = Recipe.model_validate({"epochs": 1, "loss": given})
    assert recipe.loss == spec
    # As when a case's record is read back, and when a setting overrides it.
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert change_recipe(recipe, {"batch_size": 2}).loss == spec


@pytest.mark.parametrize(("text", "spec"), FORMS.items(), ids=FORMS)
@pytest.mark.parametrize("before", ["focal", "[dice, focal]"])
def test_a_setting_replaces_the_loss(
    write_suite: Write, text: str, spec: LossSpec, before: str
) -> None:
    if before != text:
        assert read(write_suite(suite(before)), f"recipe.loss={text}") == spec
    override = f"overrides: [{{model: enet, recipe: {{loss: {text}}}}}]\n"
    if before != "focal" or not text.startswith("{name: focal"):
        assert read(write_suite(suite(before, override))) == spec


def test_a_setting_changes_a_part_of_a_loss(write_suite: Write) -> None:
    file = write_suite(suite("{name: focal, class_weights: enet}"))
    assert read(file, "recipe.loss.gamma=3") == Focal(gamma=3, class_weights="enet")
    assert read(file, "recipe.loss=dice") == Dice()
    [fault] = faults(file, "recipe.loss=[dice,focel]")
    assert "--set recipe.loss=[dice,focel]: " in fault
    assert "'focel'. Did you mean 'focal'?" in fault


def test_a_sums_value(write_suite: Write) -> None:
    spec = read(write_suite(suite("[cross_entropy, {name: dice, weight: 0.5}]")))
    # 2 pixels of 2 classes; p of the true class is 3/4 and 1/2.
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log().view(1, 2, 1, 2)
    target = torch.tensor([[[0, 1]]])
    assert logits.softmax(1).flatten().tolist() == pytest.approx([0.75, 0.5, 0.25, 0.5])
    loss_fn = build_loss(spec, 2, torch.device("cpu"), 0.4)
    found = mean(loss_fn.totals(logits, target), loss_fn.weights(target)).item()
    # Dice of class 0: 2 (3/4) / (5/4 + 1) = 2/3. Of class 1: 2 (1/2) / (3/4 + 1) = 4/7.
    dice = 1 - (2 / 3 + 4 / 7) / 2
    assert found == pytest.approx(F.cross_entropy(logits, target).item() + 0.5 * dice)
    assert found == pytest.approx((0.2876821 + 0.6931472) / 2 + 0.5 * dice)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cross_entropy", "{name: cross_entropy, weight: 1.0}"),
        ("cross_entropy", "{name: cross_entropy, class_weights: none}"),
        ("focal", "{name: focal, gamma: 2}"),
        (
            "[cross_entropy, {name: dice, weight: 0.5}]",
            "{name: sum, terms: [{name: cross_entropy}, {name: dice, weight: 0.5}]}",
        ),
        ("[cross_entropy, dice]", "[{name: cross_entropy, weight: 1}, {name: dice, weight: 1.0}]"),
    ],
)
def test_same_losses_same_case(write_suite: Write, one: str, other: str) -> None:
    assert case_id(write_suite(suite(one))) == case_id(write_suite(suite(other)))


def test_other_losses_other_cases(write_suite: Write) -> None:
    texts = [text for text, spec in FORMS.items() if spec != SUM]
    texts += ["[cross_entropy, {name: dice, weight: 0.5}]", "[cross_entropy, dice]"]
    texts += ["{name: cross_entropy, weight: 2}"]
    assert len({case_id(write_suite(suite(text))) for text in texts}) == len(texts)


def test_a_plain_loss_is_hashed_as_before_it_had_a_weight() -> None:
    plain = {"name": "cross_entropy", "class_weights": None, "label_smoothing": 0.0}
    assert canonical(Recipe(epochs=1))["loss"] == plain
    assert canonical(CrossEntropy(weight=2)) == plain | {"weight": 2}


def test_the_default_is_cross_entropy(write_suite: Write) -> None:
    assert case_id(write_suite()) == case_id(write_suite(suite("cross_entropy")))


@pytest.mark.parametrize(
    ("text", "message"),
    [pytest.param(text, message, id=text) for text, message in WRONG],
)
def test_faults(write_suite: Write, text: str, message: str) -> None:
    file = write_suite(suite(text))
    line = file.read_text().splitlines().index(f"  loss: {text}") + 1
    [found] = faults(file)
    assert found.startswith(f"{file}:{line}: recipe.loss")
    assert message in found


@pytest.mark.parametrize("text", [text for text, _ in WRONG if "[0, 0]" not in text])
def test_the_schema_refuses_what_loading_refuses(write_suite: Write, text: str) -> None:
    with pytest.raises(jsonschema.ValidationError) as caught:
        jsonschema.validate(yaml_file.read(write_suite(suite(text))).data, json_schema())
    assert list(caught.value.absolute_path)[:2] == ["recipe", "loss"]


def test_a_fault_has_the_line_of_its_term(write_suite: Write) -> None:
    file = write_suite(TINY + "  loss:\n    - cross_entropy\n    - name: dice\n    - focl\n")
    line = file.read_text().splitlines().index("    - focl") + 1
    [found] = faults(file)
    assert found.startswith(f"{file}:{line}: recipe.loss.2: Unknown ")
    assert "'focl'. Did you mean 'focal'?" in found


@pytest.mark.parametrize("given", [[], ["sum"], [["dice"]], [None], [5], {"name": "sum"}])
def test_no_sum(given: Any) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({"epochs": 1, "loss": given})


def test_terms() -> None:
    assert terms(SUM) == SUM.terms
    assert terms(Dice()) == (Dice(),)


def test_rules_inside_a_sum_become_numbers() -> None:
    spec = Sum(
        terms=(
            Focal(class_weights="inverse", weight=2, gamma=1),
            Dice(),
            CrossEntropy(class_weights="enet", label_smoothing=0.1),
            CrossEntropy(class_weights=(1, 2, 3)),
        )
    )
    found = with_counted_weights(spec, lambda: COUNTS)
    assert isinstance(found, Sum)
    # 1 / frequency: 2, 10/3 and 5, of sum 1.
    inverse = tuple(pytest.approx(x / (31 / 3)) for x in (2, 10 / 3, 5))
    focal, dice, entropy, plain = found.terms
    assert isinstance(focal, Focal)
    assert (focal.class_weights, focal.weight, focal.gamma) == (inverse, 2, 1)
    assert dice is spec.terms[1]
    assert isinstance(entropy, CrossEntropy)
    assert entropy.class_weights == tuple(class_weights("enet", COUNTS))
    assert entropy.label_smoothing == 0.1
    assert plain is spec.terms[3]
    build_loss(found, 3, torch.device("cpu"), 0.4)


@pytest.mark.parametrize("spec", [CrossEntropy(), Dice(), SUM, Focal(class_weights=(1, 2, 3))])
def test_numbers_need_no_counting(spec: LossSpec) -> None:
    assert with_counted_weights(spec, lambda: pytest.fail("counted")) == spec


def test_one_rule_is_numbered_alone() -> None:
    found = with_counted_weights(Focal(class_weights="inverse"), lambda: COUNTS)
    assert isinstance(found, Focal)
    assert found.class_weights == pytest.approx((6 / 31, 10 / 31, 15 / 31))
