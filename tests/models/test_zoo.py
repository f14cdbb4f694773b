"""The zoo: published sizes, names and accuracies; weights that fit, or an error that says why not."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from openwork import data, models, plugins
from openwork.errors import ModelError, UsageError

REAL = Path(os.environ.get("OPENWORK_DATA", "/nonexistent"))
HAS_REAL = (REAL / "cifar10").is_dir() and (REAL / "weights").is_dir()

# As published: Keras and torchvision list the ImageNet models, timm ViT-S; He et al. the CIFAR ones (0.27, 0.46,
# 0.66, 0.85 M). With their poolers, which the zoo leaves out, BERT-base has 109,482,240 and MiniLM-L6 22,713,216.
PARAMETERS = {
    "alexnet_cifar": 23_272_266,
    "bert_base": 109_482_240 - 768 * 769,
    "cifar10_resnet20": 269_722,
    "cifar10_resnet32": 464_154,
    "cifar10_resnet44": 658_586,
    "cifar10_resnet56": 853_018,
    "cifar10_vgg16": 14_728_266,
    "densenet121": 7_978_856,
    "edsr": 1_369_859,
    "efficientnet_lite0": 4_652_008,
    "espcn": 22_729,
    "gru_timit": 9_556_992 + 4 * 3 * 1024 + 48 * 1025,
    "lenet5": 431_080,
    "lstm_timit": 9_556_992 // 3 * 4 + 4 * 4 * 1024 + 48 * 1025,
    "minilm": 22_713_216 - 384 * 385,
    "mobilenetv2": 3_504_872,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "shufflenetv2": 2_278_604,
    "unet": 31_037_698,
    "vgg16": 138_357_544,
    "vit_cifar": 692_458,
    "vit_s": 22_050_664,
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


OUTPUTS = {
    "bert_base": [(1, 128, 768)],
    "edsr": [(1, 3, 128, 128)],
    "espcn": [(1, 1, 672, 672)],
    "gru_timit": [(1, 1, 48), (1, 2, 1024)],
    "lstm_timit": [(1, 1, 48), (1, 2, 1024), (1, 2, 1024)],
    "minilm": [(1, 384)],
    "unet": [(1, 2, 256, 256)],
}
"""What is not [batch, classes] with the 10 classes of small images or the 1,000 of large ones."""
HEAVY = ("bert_base", "unet", "vgg16")
"""Models whose random initialisation alone takes seconds."""


@pytest.mark.parametrize("name", plugins.names("models"))
def test_every_model_has_its_published_size(name):
    with torch.device("meta"):
        model = models.resolve(name, weights=None)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert not model.training


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in HEAVY else ()) for n in PARAMETERS])
def test_every_model_maps_its_inputs_to_finite_outputs(name):
    shape = models.input_shape(name)
    classes = 1000 if shape and shape[-1] == 224 else 10
    with torch.inference_mode():
        y = models.resolve(name, weights=None)(*models.example_inputs(name))
    outputs = [y] if isinstance(y, torch.Tensor) else y
    assert [y.shape for y in outputs] == OUTPUTS.get(name, [(1, classes)])
    assert all(y.isfinite().all() for y in outputs)


@pytest.mark.parametrize("name", plugins.names("models"))
def test_example_inputs_take_any_batch_and_are_always_the_same(name):
    one, again, three = models.example_inputs(name), models.example_inputs(name), models.example_inputs(name, 3)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert [x.shape for x in three] == [(3, *x.shape[1:]) for x in one]
    if shape := models.input_shape(name):
        assert [x.shape for x in one] == [shape]


def test_lenet5_has_the_430500_weights_that_papers_count():
    weights = [p for p in models.resolve("lenet5").parameters() if p.ndim > 1]
    assert [p.numel() for p in weights] == [500, 25_000, 400_000, 5_000]


# A sample of torchvision's own state dicts: first, last and the oddest names.
TORCHVISION = {
    "resnet18": {"conv1.weight": (64, 3, 7, 7), "layer2.0.downsample.0.weight": (128, 64, 1, 1), "fc.bias": (1000,)},
    "resnet50": {
        "layer1.0.downsample.1.running_var": (256,),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "fc.weight": (1000, 2048),
    },
    "mobilenetv2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.2.conv.1.0.weight": (96, 1, 3, 3),
        "features.17.conv.3.running_mean": (320,),
        "features.18.0.weight": (1280, 320, 1, 1),
        "classifier.1.weight": (1000, 1280),
    },
    "densenet121": {
        "features.conv0.weight": (64, 3, 7, 7),
        "features.denseblock1.denselayer6.conv1.weight": (128, 224, 1, 1),
        "features.denseblock4.denselayer16.norm2.weight": (128,),
        "features.transition3.norm.running_mean": (1024,),
        "features.transition3.conv.weight": (512, 1024, 1, 1),
        "features.norm5.bias": (1024,),
        "classifier.weight": (1000, 1024),
    },
    "shufflenetv2": {
        "conv1.0.weight": (24, 3, 3, 3),
        "stage2.0.branch1.2.weight": (58, 24, 1, 1),
        "stage2.0.branch2.3.weight": (58, 1, 3, 3),
        "stage3.7.branch2.6.running_var": (116,),
        "conv5.1.weight": (1024,),
        "fc.weight": (1000, 1024),
    },
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_parameter_names_are_torchvisions(name):
    found = {key: tuple(value.shape) for key, value in models.resolve(name).state_dict().items()}
    assert TORCHVISION[name].items() <= found.items()


def test_option_a_shortcuts_take_every_second_pixel_and_pad_the_channels_evenly():
    from openwork.models._cifar_resnet import Block

    block = Block(2, 4, stride=2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 2, 4, 4)
    y = block(x)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2]) and not y[:, [0, 3]].any()


@pytest.mark.skipif(not HAS_REAL, reason="OPENWORK_DATA holds no cifar10/ and weights/")
def test_the_published_resnet20_classifies_as_published():
    # All 10,000 test images give 9,173 (91.73 %); the first 1,000 take a second.
    model, test = models.resolve("cifar10_resnet20"), data.resolve("cifar10")
    x, y = next(test.test_batches(1000))
    with torch.inference_mode():
        right = int((model(x).argmax(1) == y).sum())
    assert right == 936


@pytest.mark.slow
@pytest.mark.skipif(not HAS_REAL, reason="OPENWORK_DATA holds no cifar10/ and weights/")
@pytest.mark.parametrize(("depth", "right"), [(20, 9173), (32, 9263), (44, 9310), (56, 9339)])
def test_published_weights_reach_their_published_accuracy(depth, right):
    model, test = models.resolve(f"cifar10_resnet{depth}"), data.resolve("cifar10")
    with torch.inference_mode():
        found = sum(int((model(x).argmax(1) == y).sum()) for x, y in test.test_batches(500))
    assert found == right


@pytest.fixture
def saved(tmp_path):
    state = models.resolve("lenet5").state_dict()
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    return state, path


def test_weights_are_taken_from_a_file(saved):
    state, path = saved
    again = models.resolve("lenet5", weights=path).state_dict()
    assert state.keys() == again.keys() and all(torch.equal(state[key], again[key]) for key in state)


def test_pretrained_weights_are_looked_for_in_the_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENWORK_DATA", str(tmp_path))
    message = (
        r"no weights at .*weights/cifar10_resnet20.safetensors; run `openwork data get weights`, set OPENWORK_DATA"
    )
    with pytest.raises(ModelError, match=message):
        models.resolve("cifar10_resnet20")
    (tmp_path / "weights").mkdir()
    random = models.resolve("cifar10_resnet20", weights=None)
    without_counters = {k: v for k, v in random.state_dict().items() if not k.endswith("num_batches_tracked")}
    save_file(without_counters, tmp_path / "weights/cifar10_resnet20.safetensors")
    found = models.resolve("cifar10_resnet20")
    assert torch.equal(found.linear.weight, random.linear.weight)


def broken(state, path, kind):
    if kind == "missing":
        del state["fc2.bias"], state["fc2.weight"]
    elif kind == "extra":
        state["fc3.weight"] = torch.zeros(1)
    elif kind == "shape":
        state["fc2.weight"] = torch.zeros(11, 500)
    elif kind == "nan":
        state["conv1.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"does not fit: fc2.bias is missing \(and 1 more\)"),
        ("extra", "does not fit: fc3.weight is not in the model$"),
        ("shape", r"fc2.weight has shape \[11, 500\], the model wants \[10, 500\]"),
        ("nan", "holds NaN or infinity in conv1.weight"),
        ("truncated", "is not a whole safetensors file"),
    ],
)
def test_weights_that_do_not_fit_are_refused(saved, kind, message):
    state, path = saved
    broken(state, path, kind)
    with pytest.raises(ModelError, match=message):
        models.resolve("lenet5", weights=path)


USERS = """
import torch
from torch import nn
INPUT_SHAPE = (1, 3)
def factory(width=2): return nn.Linear(3, width)
def nothing(): return "a string"
def broken(): raise ValueError("no")
def poisoned():
    model = nn.Linear(3, 2)
    model.weight.data[0, 0] = float("inf")
    return model
"""


@pytest.fixture
def users_file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(USERS)
    return path


def test_the_users_factory_gives_a_model_and_perhaps_its_input_shape(users_file, tmp_path):
    model = models.resolve(f"{users_file}:factory", width=5)
    assert model.weight.shape == (5, 3) and not model.training
    assert models.input_shape(f"{users_file}:factory") == (1, 3)
    assert models.example_inputs(f"{users_file}:factory", 4)[0].shape == (4, 3)
    save_file({"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert models.resolve(f"{users_file}:factory", weights=str(tmp_path / "w.safetensors")).weight.sum() == 6
    assert models.resolve(model) is model


def test_the_users_file_may_have_inputs_of_its_own_kind(tmp_path):
    path = tmp_path / "words.py"
    path.write_text("import torch\ndef example_inputs(batch, length=4): return torch.ones(batch, length).long()\n")
    assert models.input_shape(f"{path}:model") is None
    (ids,) = models.example_inputs(f"{path}:model", 2, length=7)
    assert ids.dtype is torch.int64 and ids.shape == (2, 7)


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            "{path}:model",
            {},
            "silent.py:model does not say what it takes; set INPUT_SHAPE in its file, or give --input",
        ),
        ("lenet5", {"length": 3}, "the inputs of lenet5 have no such option: 'length'"),
        ("minilm", {"length": 513}, r"length=513 must lie in 2\.\.512"),
        ("minilm", {"width": 3}, "the inputs of minilm have no such option: 'width'"),
    ],
)
def test_inputs_that_nobody_knows_are_named(tmp_path, spec, options, message):
    path = tmp_path / "silent.py"
    path.write_text("x = 1\n")
    with pytest.raises(UsageError, match=message):
        models.example_inputs(spec.format(path=path), **options)


@pytest.mark.parametrize(
    ("spec", "options", "error", "message"),
    [
        ("{file}:nothing", {}, ModelError, "returned str, not a torch.nn.Module"),
        ("{file}:broken", {}, ModelError, "raised ValueError: no"),
        ("{file}:poisoned", {}, ModelError, "the parameter weight holds NaN or infinity"),
        ("{file}:absent", {}, UsageError, "net.py has no function 'absent'"),
        ("lenet", {}, UsageError, "did you mean lenet5"),
        ("lenet5", {"weights": "pretrained"}, ModelError, "lenet5 has no published weights; pass weights=None"),
        ("lenet5", {"weights": "/nowhere.safetensors"}, ModelError, "there are no weights at /nowhere.safetensors"),
        ("lenet5", {"colour": 3}, ModelError, "lenet5 takes no such option: 'colour'"),
    ],
)
def test_mistakes_are_named(users_file, spec, options, error, message):
    with pytest.raises(error, match=message):
        models.resolve(spec.format(file=users_file), **options)
