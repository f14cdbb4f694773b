"""Sentence pairs: files as they are found, ranks against scipy, what an embedding is scored by."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from openwork import data
from openwork.data import Pairs, SentencePairs, stsb
from openwork.data._pairs import read_pairs, spearman
from openwork.errors import DataError, UsageError

REAL = Path(os.environ.get("OPENWORK_DATA", "/nonexistent"))

TABLE = 'sentence1\tsentence2\tscore\nA "b" c.\tÜber\t5.0\nx\ty, z\t0.25\n'


def write(folder, **tables):
    folder.mkdir(parents=True)
    for name in ("train", "dev", "test"):
        (folder / f"{name}.tsv").write_text(tables.get(name, TABLE), encoding="utf-8")


@pytest.mark.parametrize("folder", ["stsb", "glue/stsb"])
def test_tables_are_read_without_quoting_from_either_folder(tmp_path, folder):
    write(tmp_path / folder, dev=TABLE.replace("\n", "\r\n"))
    found = stsb.load(tmp_path)
    assert found.test.first == ('A "b" c.', "x") and found.test.second == ("Über", "y, z")
    assert found.test.scores.tolist() == [5, 0.25] == found.validation.scores.tolist() and len(found.train) == 2


def test_columns_are_found_by_name_as_in_glues_own_files(tmp_path):
    (tmp_path / "train.tsv").write_text("index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta\tb\t3.5\n")
    found = read_pairs(tmp_path / "train.tsv")
    assert (found.first, found.second, found.scores.tolist()) == (("a",), ("b",), [3.5])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index\tsentence1\tsentence2\n0\ta\tb\n", "test.tsv has no column score; its first line must name"),
        ("sentence1\tsentence2\tscore\na\tb\t1\na\tb\n", "test.tsv is damaged in line 3 .*get it again"),
        ("sentence1\tsentence2\tscore\na\tb\thigh\n", "test.tsv is damaged in line 2"),
        ("sentence1\tsentence2\tscore\n", "test.tsv holds no pairs"),
        ("", "test.tsv has no column"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, content, message):
    write(tmp_path / "stsb", test=content)
    with pytest.raises(DataError, match=message):
        stsb.load(tmp_path)


def test_a_missing_table_is_named_with_how_to_get_it(tmp_path):
    write(tmp_path / "stsb")
    (tmp_path / "stsb" / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"dev.tsv is not in .*stsb; put train.tsv, dev.tsv.*, or set OPENWORK_DATA"):
        stsb.load(tmp_path)
    (tmp_path / "stsb" / "dev.tsv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"dev\.tsv cannot be read"):
        stsb.load(tmp_path)


@given(st.integers(2, 30).flatmap(lambda n: st.tuples(*[st.lists(st.integers(-3, 3), min_size=n, max_size=n)] * 2)))
def test_rank_correlation_is_scipys(values):
    one, other = map(np.array, values)
    if len(set(values[0])) == 1 or len(set(values[1])) == 1:
        assert np.isnan(spearman(one, other))
    else:
        assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic, abs=1e-12)


ANGLES = {"a": 0, "b": 20, "c": 60, "d": 170}


def embed(sentences):
    """Vectors of some length at a known angle."""
    angles = torch.tensor([float(ANGLES[s]) for s in sentences]).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1) * 3


def pairs(scores, count=1):
    return Pairs(("a", "a", "a") * count, ("b", "c", "d") * count, np.array(scores * count, np.float32))


def test_pairs_are_compared_by_the_cosine_of_their_embeddings():
    found = SentencePairs("toy", train=pairs([1, 2, 3]), validation=pairs([3, 1, 2]), test=pairs([5, 2, 1], 70))
    assert found.spearman(embed) == pytest.approx(1)
    assert found.spearman(embed, "train") == pytest.approx(-1)
    assert found.spearman(lambda s: embed(s).numpy(), "validation") == pytest.approx(0.5)
    with pytest.raises(UsageError, match="split='dev' is none of 'train', 'validation', 'test'"):
        found.spearman(embed, "dev")


def test_pairs_are_not_labelled_examples(tmp_path):
    write(tmp_path / "stsb")
    assert isinstance(data.load("stsb", root=tmp_path), SentencePairs)
    with pytest.raises(DataError, match="stsb holds pairs of sentences, not examples with labels"):
        data.resolve("stsb", root=tmp_path)


@pytest.mark.skipif(not (REAL / "glue").is_dir(), reason="OPENWORK_DATA holds no glue/")
def test_real_stsb():
    found = data.load("stsb")
    assert (len(found.train), len(found.validation), len(found.test)) == (5749, 1500, 1379)
    assert found.test.first[0] == "A girl is styling her hair." and found.test.scores[0] == 2.5
    for split in (found.train, found.validation, found.test):
        assert split.scores.min() >= 0 and split.scores.max() == 5
