"""What BLIP and BLIP-2 share, number by number: contrast, matching, hard mismatches, masks."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from gill_lite.family.blip2 import who_sees
from gill_lite.family.matching import contrast_loss, hard_pairs, match_loss
from gill_lite.model.losses import retrieval_loss


def test_contrast_is_the_mean_of_both_directions_and_its_scale_has_an_end():
    text, picture = torch.nn.functional.normalize(
        torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    for given, used in ((math.log(3), math.log(3)), (9.0, math.log(100))):
        found = contrast_loss(text @ picture.T, torch.tensor(given))
        assert found.item() == pytest.approx(
            retrieval_loss(text, picture, torch.tensor(used)).item(), rel=1e-5
        )


def test_matches_and_mismatches_weigh_the_same():
    logits = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    match = torch.tensor([1, 1, 0, 0, 0, 0])
    each = cross_entropy(logits, match, reduction="none")
    expected = (each[:2].mean() + each[2:].mean()) / 2
    assert match_loss(logits, match).item() == pytest.approx(expected.item())


def test_the_hardest_mismatch_is_drawn_most():
    cosines = torch.tensor([[1.0, 0.9, -1.0], [-1.0, 1.0, 0.9], [0.9, -1.0, 1.0]])
    text, picture, match = hard_pairs(cosines, torch.tensor(3.0), torch.Generator().manual_seed(0))
    assert text.tolist() == [0, 1, 2, 0, 1, 2, 2, 0, 1]
    assert picture.tolist() == [0, 1, 2, 1, 2, 0, 0, 1, 2]
    assert match.tolist() == [1] * 3 + [0] * 6


def test_a_word_sees_the_queries_and_the_words_before_it():
    assert who_sees(2, 2).int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]
