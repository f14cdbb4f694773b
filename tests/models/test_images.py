"""Networks that join, split, shuffle and enlarge: the published sizes of their variants, and what they do to images."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from openwork import models
from openwork.errors import ModelError
from openwork.models.densenet121 import DenseBlock
from openwork.models.edsr import EDSR
from openwork.models.shufflenetv2 import Unit, shuffle
from openwork.models.unet import Up


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


# As published: torchvision lists ShuffleNetV2, milesial/Pytorch-UNet the U-Nets (3 channels, 1 class), and EDSR-PyTorch
# 1.37, 1.55 and 1.52 M.
SIZES = [
    ("shufflenetv2", {"width": 0.5}, 1_366_792),
    ("shufflenetv2", {"width": 1.5}, 3_503_624),
    ("shufflenetv2", {"width": 2.0}, 7_393_996),
    ("unet", {"classes": 1}, 31_037_633),
    ("unet", {"classes": 1, "upsampling": "bilinear"}, 17_262_977),
    ("edsr", {"scale": 3}, 1_554_499),
    ("edsr", {"scale": 4}, 1_517_571),
]


@pytest.mark.parametrize(("name", "options", "parameters"), SIZES)
def test_variants_have_their_published_size(name, options, parameters):
    with torch.device("meta"):
        model = models.resolve(name, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shufflenetv2", {"width": 3}, r"width=3 of shufflenetv2 is none of 0\.5, 1\.0, 1\.5, 2\.0"),
        ("unet", {"upsampling": "nearest"}, "upsampling='nearest' of unet is none of 'transposed', 'bilinear'"),
        ("edsr", {"scale": 5}, "scale=5 of edsr is none of 2, 3, 4"),
        ("espcn", {"scale": 0}, "scale=0 of espcn must be at least 1"),
    ],
)
def test_variants_that_do_not_exist_are_named(name, options, message):
    with pytest.raises(ModelError, match=message):
        models.resolve(name, **options)


def test_a_dense_block_keeps_what_it_was_given_in_front():
    x = torch.randn(1, 8, 5, 5)
    y = DenseBlock(8, depth=3).eval()(x)
    assert y.shape == (1, 8 + 3 * 32, 5, 5) and torch.equal(y[:, :8], x)


def test_torchvisions_file_of_densenet_fits(tmp_path):
    model = models.resolve("densenet121")
    old = {
        key.replace("norm1.", "norm.1.").replace("conv1.", "conv.1.").replace("norm2.", "norm.2."): value
        for key, value in model.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121-a639ec97.pth")
    again = models.resolve("densenet121", weights=tmp_path / "densenet121-a639ec97.pth")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_shuffling_takes_channels_of_both_halves_in_turn():
    x = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 3, 2)
    assert shuffle(x)[1, :, 2, 1].tolist() == [0, 3, 1, 4, 2, 5]


def test_half_of_the_channels_pass_by_a_unit():
    x = torch.randn(1, 8, 4, 4)
    y = Unit(8, 8, stride=1).eval()(x)
    assert torch.equal(y[:, ::2], x[:, :4]) and not torch.equal(y[:, 1::2], x[:, 4:])
    assert Unit(8, 12, stride=2).eval()(x).shape == (1, 12, 2, 2)


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_a_u_net_takes_sides_that_do_not_halve_evenly(upsampling):
    model = models.resolve("unet", upsampling=upsampling, classes=3, channels=1)
    assert model(torch.randn(2, 1, 37, 50)).shape == (2, 3, 37, 50)


def test_a_u_net_puts_the_way_down_in_front_and_pads_what_is_too_small():
    up = Up(4, 2, bilinear=False).eval()
    seen = []
    up.conv.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    x, skipped = torch.randn(1, 4, 2, 2), torch.randn(1, 2, 5, 4)
    up(x, skipped)
    assert torch.equal(seen[0][:, :2], skipped)
    assert torch.equal(seen[0][:, 2:, :4], up.up(x)) and not seen[0][:, 2:, 4].any()


@pytest.mark.parametrize(
    ("name", "options"), [("espcn", {"scale": 2}), ("espcn", {"scale": 3}), ("edsr", {"scale": 4})]
)
def test_super_resolution_enlarges_each_side(name, options):
    model = models.resolve(name, **options)
    x = torch.rand(2, models.input_shape(name)[1], 9, 12)
    assert model(x).shape == (*x.shape[:2], 9 * options["scale"], 12 * options["scale"])


def test_pixel_shuffle_sends_channels_to_neighbouring_pixels():
    model = models.resolve("espcn", scale=2)
    torch.nn.init.zeros_(model.conv3.weight)
    model.conv3.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    y = model(torch.rand(1, 1, 3, 3))
    assert y[0, 0, :2, :2].tolist() == [[1, 2], [3, 4]]


def test_edsr_without_weights_returns_the_mean_colour():
    model = EDSR((2,)).eval()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    y = model(255 * torch.rand(1, 3, 4, 4))
    torch.testing.assert_close(y[0, :, 0, 0] / 255, torch.tensor([0.4488, 0.4371, 0.4040]))


def test_the_authors_file_of_edsr_fits(tmp_path):
    model = models.resolve("edsr")
    theirs = {**model.state_dict(), "sub_mean.weight": torch.eye(3), "add_mean.bias": torch.zeros(3)}
    save_file(theirs, tmp_path / "edsr.safetensors")
    assert {"head.0.weight", "body.15.body.2.bias", "body.16.weight", "tail.0.0.weight", "tail.1.bias"} < theirs.keys()
    assert load_file(tmp_path / "edsr.safetensors").keys() == theirs.keys()
    models.resolve("edsr", weights=tmp_path / "edsr.safetensors")
