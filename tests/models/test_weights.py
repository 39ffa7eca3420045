import argparse
import datetime
import functools
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.errors import UserError
from bench.models.weight_files import WRAPPERS, read_weights, write_weights
from bench.models.weights import load_encoder, load_model, load_part, of_a_deeper_network


class Net(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Conv2d(4, classes, 1)


def test_round_trip(tmp_path: Path) -> None:
    one, other = Net(), Net()
    write_weights(one.state_dict(), tmp_path / "w.safetensors")
    load_model(other, read_weights(tmp_path / "w.safetensors"), "w")
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
def test_wrappers_are_taken_off(tmp_path: Path, wrapper: str | None) -> None:
    state = Net().state_dict()
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth")) == set(state)


LIGHTNING = ("model.", "net.", "a.b.")


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", *LIGHTNING],
)
def test_what_stands_before_every_key_is_taken_off(prefix: str) -> None:
    source = Net()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    whole, encoder = Net(), Net()
    more = {"criterion.weight": torch.ones(2)} if prefix in LIGHTNING else {}
    load_model(whole, state | more, "w")
    load_encoder(encoder, state, "w")
    for net in (whole, encoder):
        assert torch.equal(net.encoder[0].weight, source.encoder[0].weight)
    assert torch.equal(whole.head.weight, source.head.weight)


def test_a_part_that_was_compiled_is_found() -> None:
    source, net = Net(), Net()
    state = {k.replace("encoder.", "encoder._orig_mod."): v for k, v in source.state_dict().items()}
    load_model(net, state, "w")
    assert torch.equal(net.encoder[0].weight, source.encoder[0].weight)


def test_a_network_with_a_part_named_module() -> None:
    source, net = nn.Sequential(), nn.Sequential()
    for one in (source, net):
        one.add_module("module", nn.Conv2d(3, 4, 1))
    load_model(net, source.state_dict(), "w")
    assert torch.equal(net.module.weight, source.module.weight)


def test_several_sets_of_weights_are_refused(tmp_path: Path) -> None:
    state = Net().state_dict()
    both = {f"{part}.{key}": v for part in ("student", "teacher") for key, v in state.items()}
    with pytest.raises(UserError, match=r"fill the model: keys that begin with student. and teach"):
        load_model(Net(), both, "w")
    with pytest.raises(UserError, match="several sets of weights that fill the encoder"):
        load_encoder(Net(), both, "w")
    torch.save({"model": state, "model_ema": state}, tmp_path / "w.pth")
    message = r"several sets of weights \(model, model_ema\).*\['model'\], 'weights\.pth'"
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "w.pth")


class Config:
    """An object of a training script."""

    def __init__(self, values: dict) -> None:
        self.values = values


@pytest.mark.parametrize(
    "other",
    [
        argparse.Namespace(lr=0.1),
        np.float64(0.5),
        np.arange(3),
        Config({"a": [1]}),
        {"nested": Config({})},
        [Config({})],
        Path("x"),
        {1, 2},
        datetime.datetime(2026, 1, 1),
        functools.partial(print, 1),
    ],
    ids=lambda other: type(other).__name__,
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_no_tensor_is_left_out(tmp_path: Path, other: object, zipped: bool) -> None:
    state = Net().half().state_dict()
    content = {"args": other, "model": state, "optimizer": {"state": {}, "param_groups": [1]}}
    file = tmp_path / "w.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    read = read_weights(file)
    assert list(read) == list(state)
    assert all(torch.equal(read[key], state[key]) for key in state)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_never_runs(tmp_path: Path, zipped: bool) -> None:
    content = {"model": Net().state_dict(), "trap": Trap(tmp_path / "ran")}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "w.pth", weights_only=False)  # the trap would work
    assert (tmp_path / "ran").exists()


def test_pickled_models_are_refused(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "model.pth")
    message = r"holds a whole pickled object \(\S*test_weights\.Net\)\. Only state dicts are load"
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "model.pth")
    torch.save({"model": Net(), "epoch": 3}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=r"it holds model: \S*Net, epoch: int\. Save the weights"):
        read_weights(tmp_path / "model.pth")


def test_a_truncated_file_is_said_to_be(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    for length in (len(content) // 2, len(content) - 10, 3):
        (tmp_path / "w.pth").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"w\.pth: it is damaged, incomplete or no file of"):
            read_weights(tmp_path / "w.pth")


def test_the_wrong_number_of_classes_is_said() -> None:
    message = "w was trained for 2 classes, not 3: head.weight is .2, 4, 1, 1., not .3, 4, 1, 1."
    with pytest.raises(UserError, match=message):
        load_model(Net(3), Net(2).state_dict(), "w", num_classes=3)
    wide = Net(3)
    wide.encoder[0] = nn.Conv2d(4, 4, 1)  # four channels are not four classes
    with pytest.raises(UserError, match="w does not fit the model: encoder.0.weight is"):
        load_model(Net(3), wide.state_dict(), "w", num_classes=3)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x00" * 64])
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"Cannot read weights from .*{name}"):
        read_weights(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No weight file"):
        read_weights(tmp_path / "w.safetensors")


def test_what_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "w.pth")
    with pytest.raises(UserError, match="is not a state dict"):
        read_weights(tmp_path / "w.pth")


def test_a_whole_model_is_strict() -> None:
    state = Net().state_dict()
    with pytest.raises(UserError, match=r"1 key missing \(head.bias\)"):
        load_model(Net(), {k: v for k, v in state.items() if k != "head.bias"}, "w")
    with pytest.raises(UserError, match=r"1 key unexpected \(extra\)"):
        load_model(Net(), state | {"extra": torch.zeros(1)}, "w")
    with pytest.raises(UserError, match=r"head.weight is \(2, 4, 1, 1\), not \(3, 4, 1, 1\) and 1"):
        load_model(Net(3), state, "w")


@pytest.mark.parametrize("prefix", ["", "encoder.", "backbone.", "model."])
def test_an_encoder_is_filled_and_leftovers_listed(prefix: str) -> None:
    source, net = Net(), Net()
    head = net.head.weight.clone()
    state = {prefix + k: v for k, v in source.encoder.state_dict().items()}
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    state[f"{prefix}classifier.weight"] = torch.zeros(1)
    assert load_encoder(net, state, "w") == (f"{prefix}classifier.weight",)
    assert torch.equal(net.encoder[0].weight, source.encoder[0].weight)
    assert torch.equal(net.head.weight, head)


def test_an_encoder_must_be_filled() -> None:
    state = {k: v for k, v in Net().encoder.state_dict().items() if k != "0.weight"}
    with pytest.raises(UserError, match=r"does not fill the encoder: 1 key missing \(0.weight\)"):
        load_encoder(Net(), state, "w")
    with pytest.raises(UserError, match="no part named encoder"):
        load_encoder(nn.Linear(1, 1), state, "w")


def test_a_part_of_a_parent() -> None:
    parent, child = Net(2), Net(5)
    assert load_part(child, parent.state_dict(), "encoder", "p") == ((), ())
    assert torch.equal(child.encoder[0].weight, parent.encoder[0].weight)
    heads = ("head.weight", "head.bias")  # for other classes
    assert load_part(Net(5), parent.state_dict(), "all", "p") == (heads, heads)
    with pytest.raises(UserError, match="do not fill 'head'"):
        load_part(Net(5), parent.state_dict(), "head", "p")
    with pytest.raises(UserError, match="do not fill 'all'"):
        load_part(nn.Linear(7, 7), parent.state_dict(), "all", "p")


def test_two_sets_under_one_name_are_refused() -> None:
    state = Net().state_dict()
    both = {**state, **{f"_orig_mod.{key}": value + 1 for key, value in state.items()}}
    for load in (load_model, load_encoder):
        with pytest.raises(UserError, match="several sets of weights"):
            load(Net(), both, "w")
    both = {**state, **{f"module.{key}": value + 1 for key, value in state.items()}}
    with pytest.raises(UserError, match="several sets of weights"):
        load_encoder(Net(), both, "w")


def test_weights_that_were_averaged_load() -> None:
    source, net = Net(), Net()
    averaged = torch.optim.swa_utils.AveragedModel(source)
    load_model(net, averaged.state_dict(), "w")
    assert torch.equal(net.head.weight, source.head.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: (100 * w).to(torch.int8), "head.weight is torch.int8, not torch.float32"),
        (lambda w: w.to(torch.complex64), "head.weight is torch.complex64, not torch.float32"),
        (lambda w: w * float("nan"), "head.weight has values that are not finite"),
        (lambda w: w.to("meta"), "w cannot be loaded: "),
    ],
)
def test_numbers_of_another_kind_are_refused(change: Callable, message: str) -> None:
    state = Net().state_dict()
    state["head.weight"] = change(state["head.weight"])
    with pytest.raises(UserError, match=message):
        load_model(Net(), state, "w")
    load_model(Net(), Net().half().state_dict(), "w")  # fewer bits are fine


def test_a_deeper_network_is_recognised() -> None:
    encoder = nn.Module()
    encoder.layer1 = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    assert of_a_deeper_network(encoder, ["fc.weight", "layer1.2.weight"]) == "layer1.2.weight"
    assert of_a_deeper_network(encoder, ["a.layer1.2.weight"]) is None
    assert (
        of_a_deeper_network(encoder, ["fc.weight", "layer2.0.weight", "classifier.6.bias"]) is None
    )


class BreaksTorch:
    """A state that would change torch itself."""

    def __reduce__(self) -> tuple:
        return torch.storage.UntypedStorage, (0,), (None, {"nbytes": None})


def test_a_file_cannot_change_torch(tmp_path: Path) -> None:
    before = torch.UntypedStorage.nbytes
    torch.save({"model": Net().state_dict(), "x": BreaksTorch()}, tmp_path / "w.pth")
    assert "head.weight" in read_weights(tmp_path / "w.pth")
    assert torch.UntypedStorage.nbytes is before


@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_file_is_never_a_traceback(tmp_path: Path, zipped: bool) -> None:
    file = tmp_path / "w.pth"
    content = {"model": Net().state_dict(), "a": Config({})}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    refused = 0
    for place in range(0, len(whole), 97):
        for damaged in (whole[:place], whole[:place] + b"\xff\xfe" + whole[place + 2 :]):
            file.write_bytes(damaged)
            try:
                read_weights(file)  # some damage does not matter
            except UserError:
                refused += 1
    assert refused > len(whole) // 97 // 2  # a file cut short is always refused


@pytest.mark.parametrize(
    "content",
    [
        {"my_net": Net().state_dict(), "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}},
        {"state_dict": Net().state_dict(), "state": {0: {"exp_avg": torch.ones(1)}}},
        {"module": Net().state_dict(), "epoch": torch.tensor(3)},
        defaultdict(list, Net().state_dict()),
    ],
)
def test_the_only_weights_in_a_file_are_found(tmp_path: Path, content: dict) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth")) == set(Net().state_dict())


def test_odd_states_are_written(tmp_path: Path) -> None:
    net = Net().to(memory_format=torch.channels_last)
    net.head.weight = nn.Parameter(torch.rand(4, 2, 1, 1).transpose(0, 1))
    state = net.state_dict() | {"_extra_state": {"a": 1}}
    write_weights(state, tmp_path / "w.safetensors")
    assert torch.equal(read_weights(tmp_path / "w.safetensors")["head.weight"], net.head.weight)
