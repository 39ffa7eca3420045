"""The JSON Schema of suite files, for editors."""

from typing import Any

from bench.loss_spec import CrossEntropy, Dice, Focal
from bench.optimizer_spec import SGD, Adam, AdamW, Constant, Cosine, Poly, Step
from bench.suite import Suite


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of suite files, with the short forms that are accepted."""
    schema = Suite.model_json_schema()
    parts = schema["$defs"]
    recipe = parts["Recipe"]["properties"]
    for key, specs in (
        ("optimizer", (Adam, AdamW, SGD)),
        ("schedule", (Constant, Poly, Cosine, Step)),
        ("loss", (CrossEntropy, Focal, Dice)),
    ):
        names = [str(spec.model_fields["name"].default) for spec in specs]
        recipe[key] = {"anyOf": [{"enum": names}, recipe[key]]}
        one_of = recipe[key]["anyOf"][1]
        one_of["anyOf"] = one_of.pop("oneOf")  # a change of a recipe may leave the name out
        del one_of["discriminator"]
    terms = parts["Sum"]["properties"]["terms"]
    names_of_terms = recipe["loss"]["anyOf"][0]
    terms |= {"minItems": 1, "items": {"anyOf": [names_of_terms, terms["items"]]}}
    recipe["loss"]["anyOf"].append({key: terms[key] for key in ("type", "minItems", "items")})
    for loss in ("CrossEntropy", "Focal"):
        parts[loss]["properties"]["class_weights"]["anyOf"].insert(0, {"const": "none"})
    transform = recipe["augment"]["items"]
    transform["additionalProperties"] = {"type": ["object", "null"]}
    one = {"anyOf": [{"type": "string"}, transform]}
    recipe["augment"] = {"anyOf": [one, recipe["augment"] | {"items": one}]}
    part = {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}
    part["propertyNames"] = {"enum": ["encoder", "model"]}
    weights = parts["ModelSpec"]["properties"]["weights"]
    weights["anyOf"] = [{"type": ["string", "null"]}, part]
    del parts["Weights"]
    columns = parts["Table"]["properties"]["columns"]
    columns["items"] = {"anyOf": [{"type": "string"}, columns["items"]]}
    datasets = schema["properties"]["datasets"]
    datasets["patternProperties"] = {
        pattern: {"anyOf": [{"type": "null"}, spec]}
        for pattern, spec in datasets["patternProperties"].items()
    }
    return schema
