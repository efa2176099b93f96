"""Solutions of 04_retrieve_images, what to look for, and typical wrong answers."""

import torch
import torch.nn.functional as F

LOOK_FOR = {
    "my_retrieval_loss": "Both directions, their mean, and `exp` of the scale. Ask: why is the "
    "loss of a single pair zero? (With one candidate the quiz is trivial: InfoNCE lives on the "
    "batch.)",
    "my_search": "Cosine, not dot product; rows excluded before the k best are taken, not after. "
    "Ask: what does a search among N pictures cost? (N times P products; a million is little.)",
    "my_ceiling": "A mean of min(k, n) / n over queries, not one ratio of means. Ask: can a method "
    "be above the ceiling? (By luck on few queries; or because something gives the answer away.)",
    "my_reason": "Expectations that follow from the supposed reason, stated before the run; one "
    "prompt run or more; stories with a picture that is still true kept apart from those where it "
    "is over; caution with small differences. One point each, the fifth for another "
    "`joints_seed`. Any conclusion that its numbers carry earns full points.",
}

TEXTS = {
    "my_reason": """
Expected, if pictures help with what no sentence tells and mislead where their state is over: (a)
the fourth picture alone should do about as well as all four, since what no sentence tells is to be
seen in any of them; it should help most where it is still true at the end. (b) The first picture
should help less than the fourth, since more has changed since. (c) should change little, since the
same pictures are shown.

Seen with joints_seed 0, recall@1 of 100 stories: five sentences 0.33, with four pictures 0.64,
(a) 0.67, (b) 0.77, (c) 0.68. In the 77 stories whose fourth picture is still true, (a) goes up from
0.30 to 0.69; in the other 23 from 0.43 to 0.61. In the 39 whose first picture is still true, (b)
goes up from 0.21 to 0.87; in the other 61 from 0.41 to 0.70.

So one picture does as much as four: that speaks for the first half of the supposition. For the
second half there is something, too: both pictures gain less where they are over. But they gain
there as well, so what they show besides the change outweighs it. Against my prediction (b) is not
behind (a). With joints_seed 1 it is: five sentences 0.41, four pictures 0.65, (a) 0.74, (b) 0.66,
(c) 0.61, and where the fourth picture is over, all four gain next to nothing (0.43 and 0.48).
Which picture helps most is a matter of the joints; differences up to 0.1 are luck in any case.
"""
}


def my_retrieval_loss(text, image, logit_scale):
    scores = logit_scale.exp() * text @ image.T  # (B, B)
    own = torch.arange(len(scores))  # (B,) caption i belongs to picture i
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def my_retrieval_loss__one_way(text, image, logit_scale):
    """Asks each caption for its picture only, not each picture for its caption."""
    scores = logit_scale.exp() * text @ image.T
    return F.cross_entropy(scores, torch.arange(len(scores)))


def my_retrieval_loss__no_exp(text, image, logit_scale):
    """Multiplies by the logarithm of the scale."""
    scores = logit_scale * text @ image.T
    own = torch.arange(len(scores))
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def my_retrieval_loss__sum(text, image, logit_scale):
    """Adds both directions instead of taking their mean."""
    scores = logit_scale.exp() * text @ image.T
    own = torch.arange(len(scores))
    return F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)


def my_search(embeddings, query, k, exclude):
    scores = F.normalize(embeddings, dim=1) @ F.normalize(query, dim=0)  # (N,) cosines
    scores[exclude] = -torch.inf
    best = scores.sort(descending=True, stable=True).indices.tolist()
    return best[: min(k, len(best) - len(exclude))]


def my_search__dot_product(embeddings, query, k, exclude):
    """Forgets to bring the vectors to length 1, so long ones win."""
    scores = embeddings @ query
    scores[exclude] = -torch.inf
    return scores.sort(descending=True).indices.tolist()[: min(k, len(scores) - len(exclude))]


def my_search__exclude_later(embeddings, query, k, exclude):
    """Takes the k best first and drops the excluded then: too few are left."""
    scores = F.normalize(embeddings, dim=1) @ F.normalize(query, dim=0)
    return [i for i in scores.sort(descending=True).indices.tolist()[:k] if i not in exclude]


def my_search__worst_first(embeddings, query, k, exclude):
    """Sorts upwards and so gives the least similar."""
    scores = F.normalize(embeddings, dim=1) @ F.normalize(query, dim=0)
    return [i for i in scores.sort().indices.tolist() if i not in exclude][:k]


def my_ceiling(fitting, k):
    return sum(min(k, n) / n for n in fitting) / len(fitting)


def my_ceiling__only_first(fitting, k):
    """Ignores k: the ceiling of recall@1."""
    return sum(1 / n for n in fitting) / len(fitting)


def my_ceiling__above_one(fitting, k):
    """Gives chances above 1 where k exceeds the number of candidates."""
    return sum(k / n for n in fitting) / len(fitting)


def my_ceiling__of_the_mean(fitting, k):
    """Uses the mean number of candidates: one over a mean is not a mean of ones over."""
    mean = sum(fitting) / len(fitting)
    return min(k, mean) / mean
