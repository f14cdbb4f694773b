"""ViT-S/16: timm's names, the outputs of the same weights in `transformers`, and `transformers`' own model captured."""

import pytest
import torch
from transformers import ViTConfig, ViTModel

import openwork
from openwork import models

SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "layer_norm_eps": 1e-6}


def theirs(**settings):
    torch.manual_seed(0)
    return ViTModel(ViTConfig(**SMALL, **settings), add_pooling_layer=False).eval()


def in_timms_names(state):
    """A state dict of transformers in timm's names: queries, keys and values lie in one matrix."""
    names = {
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "layers.": "blocks.",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.o_proj": "attn.proj",
        "layernorm.": "norm.",
    }
    found = {}
    for key, value in state.items():
        if "q_proj" in key:
            value = torch.cat([state[key.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            key = key.replace("attention.q_proj", "attn.qkv")
        elif "k_proj" in key or "v_proj" in key:
            continue
        for old, new in names.items():
            key = key.replace(old, new)
        found[key] = value
    return found


@pytest.fixture(scope="module")
def pair():
    """Both implementations with the same random weights, all of them away from zero."""
    source = theirs()
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    model = models.resolve("vit_s")
    state = in_timms_names(source.state_dict())
    model.load_state_dict({**state, "head.weight": model.head.weight, "head.bias": model.head.bias})
    return model, source


def test_it_computes_what_transformers_does(pair):
    model, source = pair
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        hidden = source(x).last_hidden_state[:, 0]
        torch.testing.assert_close(model(x), model.head(hidden), rtol=1e-4, atol=1e-4)


def test_names_are_timms():
    found = {key: tuple(value.shape) for key, value in models.resolve("vit_s").state_dict().items()}
    # A sample of vit_small_patch16_224 in timm.
    assert {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 197, 384),
        "patch_embed.proj.weight": (384, 3, 16, 16),
        "blocks.0.attn.qkv.bias": (1152,),
        "blocks.11.mlp.fc1.weight": (1536, 384),
        "norm.weight": (384,),
        "head.weight": (1000, 384),
    }.items() <= found.items()


class LastHiddenState(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).last_hidden_state


def test_the_model_of_transformers_compiles_unchanged():
    model = LastHiddenState(theirs(num_hidden_layers=2, image_size=64))
    engine = openwork.compile(model, torch.randn(1, 3, 64, 64), threads=1, tune="off")
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-4)
