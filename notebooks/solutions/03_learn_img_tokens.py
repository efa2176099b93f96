"""Solutions of 03_learn_img_tokens, what to look for, and typical wrong answers."""

import torch

from gill_lite.model.tokens import IGNORE

LOOK_FOR = {
    "my_img_labels": "The count of learned tokens is taken row by row from `lengths`, and [IMG0] "
    "is in. Good answers do without a loop: one comparison of positions with counts.",
    "my_joined_labels": "Each row has its own end, and everything behind it is masked, not only "
    "the [IMG] tokens. Ask: what does the second caption then teach? (Its words nothing; its "
    "[IMG] states still feed retrieval and generation.)",
    "my_row_gradient": "Softmax minus one-hot, then an outer product. Ask: which row moves most? "
    "(The right one, as long as it is improbable.)",
    "my_story": "A prediction with a reason, written before the run; what came out; an explanation "
    "of the difference; a change that breaks it. One point each. Full points do not need a right "
    "prediction.",
}

TEXTS = {
    "my_story": """
The story: "a red ball at the beach .", "it turned blue .", "it waited .", "it turned green ."

Prediction: "green" counts most; "red" and "blue" were overwritten, so they count as little as
"it"; "beach" counts, since nothing replaces it.

Observation: "green" moves the result as far as any word, and "red" and "blue" move it less than
"it" does, as predicted. "beach" counts, but "at" and "the" before it count more. Not predicted:
"ball" moves the result as far as "green", and the last "turned" nearly as far.

Explanation: without "green" the last change says nothing, and the model is left with a colour that
is over. "ball" is the only word that tells the shape; I had looked at colours and places only.
"turned" and "at" name nothing; but without them the text is one that the model has never read ("it
green", "at beach"), and that alone moves its states. So leaving out measures two things at once:
what a word says, and how odd the text is without it.

What breaks it: one more sentence, "the green ball sang a song .", brings the influence of the first
"ball" down to less than a third: each of the two says what the other says. The measure then calls a
word unimportant on which the picture depends. The first "green" loses only a little, though it is
told twice as well: without it "it turned ." is odd, and that still counts.
"""
}


def my_img_labels(captions, num_img):
    learned = captions.lengths - num_img + 1  # (B,) the text and [IMG0]
    position = torch.arange(captions.input_ids.shape[1])  # (T,)
    return captions.input_ids.masked_fill(position >= learned[:, None], IGNORE)  # (B, T)


def my_img_labels__without_img0(captions, num_img):
    """Masks [IMG0], too: the model would never learn to say that a picture comes."""
    position = torch.arange(captions.input_ids.shape[1])
    return captions.input_ids.masked_fill(position >= (captions.lengths - num_img)[:, None], IGNORE)


def my_img_labels__padding_learned(captions, num_img):
    """Counts from the end of the padded row instead of from the caption's own length."""
    labels = captions.input_ids.clone()
    if num_img > 1:
        labels[:, -num_img + 1 :] = IGNORE
    return labels


def my_img_labels__all_img(captions, num_img):
    """Learns all [IMG] tokens, though all but the first are forced."""
    position = torch.arange(captions.input_ids.shape[1])
    return captions.input_ids.masked_fill(position >= captions.lengths[:, None], IGNORE)


def my_joined_labels(labels, img_ids):
    later_img = torch.isin(labels, torch.tensor(img_ids[1:], dtype=labels.dtype))  # (B, T)
    return labels.masked_fill(later_img.cumsum(dim=1) > 0, IGNORE)


def my_joined_labels__only_img(labels, img_ids):
    """Masks the later [IMG] tokens but lets the second caption be learned."""
    return labels.masked_fill(torch.isin(labels, torch.tensor(img_ids[1:])), IGNORE)


def my_joined_labels__from_img0(labels, img_ids):
    """Ends at [IMG0] already, which must be learned."""
    return labels.masked_fill(torch.isin(labels, torch.tensor(img_ids)).cumsum(dim=1) > 0, IGNORE)


def my_joined_labels__same_end(labels, img_ids):
    """Ends every row where the first row ends."""
    later = torch.isin(labels[0], torch.tensor(img_ids[1:])).nonzero()
    labels = labels.clone()
    labels[:, int(later[0]) if len(later) else labels.shape[1] :] = IGNORE
    return labels


def my_row_gradient(h, table, target):
    slope = (table @ h).softmax(dim=0)  # (V,) the probabilities
    slope[target] -= 1  # minus one-hot
    return torch.outer(slope, h)  # (V, D)


def my_row_gradient__only_target(h, table, target):
    """Moves the right word's row only: forgets that every row competes."""
    gradient = torch.zeros_like(table)
    gradient[target] = ((table @ h).softmax(dim=0)[target] - 1) * h
    return gradient


def my_row_gradient__uphill(h, table, target):
    """Has the sign wrong: one-hot minus probabilities would raise the loss."""
    slope = -(table @ h).softmax(dim=0)
    slope[target] += 1
    return torch.outer(slope, h)


def my_row_gradient__transposed(h, table, target):
    """Gives (D, V): the outer product the wrong way round."""
    slope = (table @ h).softmax(dim=0)
    slope[target] -= 1
    return torch.outer(h, slope)
