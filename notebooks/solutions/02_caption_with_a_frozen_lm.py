"""Solutions of 02_caption_with_a_frozen_lm, what to look for, and typical wrong answers."""

import torch
import torch.nn.functional as F

from gill_lite.model.tokens import IGNORE

LOOK_FOR = {
    "my_caption_labels": "Labels as wide as the whole row, visual tokens included, and each "
    "caption's own length. Ask: why is </s> learned? (It belongs to the caption; the last visual "
    "token must say it.)",
    "my_caption_loss": "The shift, and one mean over all positions that count. Ask: what is "
    "learned without the shift? (To repeat the token just read, which needs no picture.)",
    "my_changed": "Exact comparison, name by name. Ask: is a test on a sum, or on `requires_grad`, "
    "a proof? (No: numbers can move and keep their sum; a frozen tensor can be written to.)",
    "my_experiment": "Two predictions with a reason, written before the runs; the runs; a "
    "comparison with both lines of section 4; an explanation of what was not expected. One point "
    "each, the fifth for keeping silence (attributes not named) apart from mistakes.",
}

TEXTS = {
    "my_experiment": """
(a) Strangers. Prediction: pictures tell nothing about the captions, so the best the layer can do is
to ask for an average caption; the loss ends at the line "no picture", and named attributes are
right at chance. Seen: loss 1.01, the line is at 1.05; 0.32 right, where chance is 0.35 for what
they name. Not expected: all captions name a colour, and it is wrong (0.05 right), but only 61 of
120 name a place and 50 a shape. The layer has learned what captions sound like, which is a little
more than the language model knew (hence below the line), and to be silent where silence costs
nothing.

(b) One visual token. Prediction: too little room, so some attributes are lost. Seen after 100
steps: loss 0.93, 0.81 right; time, size and shape are learned (1.00, 0.96, 0.92), place half
(0.79), position and colour least (0.62 and 0.49, and named in 70 of 120 captions). That looks like
room. But with four times as many steps the loss is 0.77 and 0.95 are right, colour 1.00, position
0.85, place 0.81. So most of it was time, not room: one token can carry most of the six, and learns
them one after the other.

(c) A worse eye, 16 numbers of 128. Prediction: some attributes disappear, as if their numbers had
been cut off. Seen: loss 0.82, 0.84 right, and none is gone; colour suffers most (0.50). With four
times as many steps all are right, and the loss is that of the whole eye. So an attribute does not
sit in one number of CLIP's vector but is spread over many, and a linear layer can put it together
from a few, given time.
"""
}


def my_caption_labels(input_ids, lengths, num_visual):
    position = torch.arange(input_ids.shape[1])  # (T,)
    text = input_ids.masked_fill(position >= lengths[:, None], IGNORE)  # (B, T)
    visual = torch.full((len(input_ids), num_visual), IGNORE)  # (B, K)
    return torch.cat([visual, text], dim=1)  # (B, K + T)


def my_caption_labels__visual_zero(input_ids, lengths, num_visual):
    """Labels visual tokens with 0: the model would have to say the word number 0 there."""
    position = torch.arange(input_ids.shape[1])
    text = input_ids.masked_fill(position >= lengths[:, None], IGNORE)
    return torch.cat([torch.zeros(len(input_ids), num_visual, dtype=torch.long), text], dim=1)


def my_caption_labels__padding_learned(input_ids, lengths, num_visual):
    """Forgets the padding: the model would learn to say <pad>."""
    return torch.cat([torch.full((len(input_ids), num_visual), IGNORE), input_ids], dim=1)


def my_caption_labels__text_only(input_ids, lengths, num_visual):
    """Forgets the visual tokens, so that every label stands K places too far to the left."""
    position = torch.arange(input_ids.shape[1])
    return input_ids.masked_fill(position >= lengths[:, None], IGNORE)


def my_caption_loss(logits, labels):
    says, wanted = logits[:, :-1], labels[:, 1:]  # (B, T-1, V), (B, T-1)
    flat = says.reshape(-1, says.shape[-1])  # (N, V)
    return F.cross_entropy(flat, wanted.reshape(-1), ignore_index=IGNORE)


def my_caption_loss__no_shift(logits, labels):
    """Compares each position's scores with its own token: it learns to repeat what it reads."""
    flat = logits.reshape(-1, logits.shape[-1])
    return F.cross_entropy(flat, labels.reshape(-1), ignore_index=IGNORE)


def my_caption_loss__mean_of_all(logits, labels):
    """Divides by all positions, also by those that do not count: much padding, small loss."""
    says, wanted = logits[:, :-1], labels[:, 1:]
    costs = F.cross_entropy(says.transpose(1, 2), wanted, ignore_index=IGNORE, reduction="none")
    return costs.mean()


def my_caption_loss__mean_of_rows(logits, labels):
    """Takes a mean for each caption, then their mean: words of short captions count for more."""
    rows = zip(logits[:, :-1], labels[:, 1:])
    return torch.stack([F.cross_entropy(s, w, ignore_index=IGNORE) for s, w in rows]).mean()


def my_changed(before, after):
    return [name for name in before if not torch.equal(before[name], after[name])]


def my_changed__close(before, after):
    """Forgives small differences, and training makes small ones."""
    return [name for name in before if not torch.allclose(before[name], after[name])]


def my_changed__sums(before, after):
    """Compares sums: numbers that change places keep theirs."""
    return [name for name in before if before[name].sum() != after[name].sum()]


def my_changed__same(before, after):
    """Lists what stayed the same."""
    return [name for name in before if torch.equal(before[name], after[name])]
