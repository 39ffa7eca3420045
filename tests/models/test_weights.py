from pathlib import Path

import pytest
import torch
from torch import nn

from bench.errors import UserError
from bench.models.weights import load_encoder, load_model, load_part, read_weights, write_weights


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


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_checkpoints_of_others_are_unwrapped(tmp_path: Path, wrapper: str | None) -> None:
    state = {f"module.{key}": value for key, value in Net().state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth")) == set(Net().state_dict())


def test_pickled_models_are_refused(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "model.pth")
    with pytest.raises(UserError, match="Only state dicts are loaded"):
        read_weights(tmp_path / "model.pth")


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
