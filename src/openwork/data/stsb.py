"""STS benchmark: 5,749 + 1,500 + 1,379 pairs of sentences, each with how alike their meanings are, 0..5.

Source: Cer, Diab, Agirre, Lopez-Gazpio and Specia 2017, arXiv:1708.00055; part of GLUE, which keeps its test scores.
"""

from pathlib import Path

from ._pairs import SentencePairs, read_pairs
from .base import data_root, missing

BY_HAND = (
    "put train.tsv, dev.tsv and test.tsv there, tables with the columns sentence1, sentence2 and score, made from the "
    "files of ixa2.si.ehu.eus/stswiki (GLUE's own test.tsv has no scores)"
)
"""How to get what `openwork data get` does not fetch."""

_FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}


def load(root: Path | None = None) -> SentencePairs:
    """The pairs in `root/glue/stsb/{train,dev,test}.tsv`, or in `root/stsb/`.

    Arguments:
        root: folder of data sets; default `$OPENWORK_DATA`, else `~/.cache/openwork/data`.

    Raises `DataError` naming a file that is missing or damaged.

        found = load().spearman(embed)
    """
    top = root or data_root()
    folder = next((f for f in (top / "glue" / "stsb", top / "stsb") if f.is_dir()), top / "stsb")
    for name in _FILES.values():
        if not (folder / name).is_file():
            raise missing(folder, name, "stsb", BY_HAND)
    return SentencePairs("stsb", **{split: read_pairs(folder / name) for split, name in _FILES.items()})
