"""Documents with tags drawn by seed: the stand-in where no files of a real data set are at hand.

The labels are as many and as rare as the tags of bibtex: 159, the r-th most frequent one on a
share .141 · r^−.595 of the examples. That makes 2.4 labels an example, the most frequent 20.4
times as frequent as the rarest and, in the mean over labels, 12.8 times as frequent as a label;
of bibtex these are published as 2.402, 20.4 and 12.5.

An example is the set of the words in it. Words have frequencies of Zipf's kind; each label brings
five words of its own, each with a chance that differs from label to label: some labels are as good
as named in the text, some hardly show.

References:
  Katakis, Tsoumakas and Vlahavas, Multilabel Text Classification for Automated Tag Suggestion,
  ECML/PKDD Discovery Challenge 2008 (bibtex).
  Charte, Rivera, del Jesus and Herrera, Addressing Imbalance in Multilabel Classification,
  Neurocomputing 2015 (its frequencies).
"""

import numpy as np

from experiments.multilabel.data import Labelled, MultilabelData

NUM_LABELS, NUM_WORDS = 159, 400
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 3000, 1000, 2000
LARGEST_SHARE, DECAY = 0.141, 0.595
WORDS_OF_LABEL = 5
CHANCES = (0.1, 0.9)  # of a label's word in a text with the label, least and most
BACKGROUND = (0.2, 0.005)  # share of texts with the most and the least frequent word
TASKS = tuple(f"tag_{rank:03}" for rank in range(1, NUM_LABELS + 1))


def shares() -> np.ndarray:
    """(159,) the labels' frequencies, the largest first."""
    return LARGEST_SHARE * np.arange(1, NUM_LABELS + 1) ** -DECAY


def load_tags(seed: int = 0) -> MultilabelData:
    """The data set that a seed stands for.

    Args:
      seed: of words, labels and examples.

    Returns:
      MultilabelData of 400 words and 159 labels: 3000 train, 1000 validation, 2000 test.
    """
    rng = np.random.default_rng(seed)
    chance = rng.uniform(*CHANCES, NUM_LABELS)
    words = np.stack(
        [rng.choice(NUM_WORDS, WORDS_OF_LABEL, replace=False) for _ in range(NUM_LABELS)]
    )
    most, least = BACKGROUND
    slope = np.log(most / least) / np.log(NUM_WORDS)
    background = rng.permutation(most * np.arange(1, NUM_WORDS + 1) ** -slope)

    def split(size: int) -> Labelled:
        y = rng.random((size, NUM_LABELS)) < shares()
        absent = np.tile(1 - background, (size, 1))  # chance that nothing brings the word
        for label, own in enumerate(words):
            absent[np.ix_(y[:, label], own)] *= 1 - chance[label]
        x = rng.random((size, NUM_WORDS)) >= absent
        return Labelled(x.astype(np.float32), y.astype(np.int8))

    return MultilabelData(TASKS, split(NUM_TRAIN), split(NUM_VALIDATION), split(NUM_TEST))
