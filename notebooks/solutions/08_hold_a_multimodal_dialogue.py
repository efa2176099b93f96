"""Solutions of 08_hold_a_multimodal_dialogue, what to look for, and typical wrong answers."""

import torch

LOOK_FOR = {
    "my_pad_left": "Rows and mask are filled from the right end, and the mask holds whole numbers. "
    "Ask: why not pad on the right, as in training? (The next word is read off the last position.)",
    "my_scaled_scores": "A clone, so that the input stays; the factor only above 1; rows decided "
    "one by one. Ask: what does a factor of 0.5 do? (Nothing: there is no way to make pictures "
    "rarer with it.)",
    "my_nucleus": "The word that crosses the line is kept, and each word is put back into its "
    "place. Ask: can the nucleus be empty? (No: nothing is likelier than the likeliest word.)",
    "my_listening": "Two predictions with a reason, made before the run; both measured, also with "
    "the picture alone; caution with differences below 0.1; a conclusion about the cause that the "
    "numbers carry. One point each.",
}

TEXTS = {
    "my_listening": """
Predicted: (a) helps a little, since more rows speak for the sentence; (b) helps, since the language
model knows "it turned red ." from its stories as a change, and "a red ball ." as a description of
something else; (c) helps, since one row is less loud than four, and costs something; (d) does
nothing.

Seen, 50 prompts, picture then sentence, shares for the sentence's and the picture's colour: as it
was 0.24 and 0.74. (a) twice 0.30 and 0.68, four times 0.20 and 0.76. (b) 0.26 and 0.72. (c) 1.00
and 0.00, with the sentence first, too. (d) twice 0.12 and 0.86, four times 0.06 and 0.86. The
picture alone is named in 1.00; under (c) in 0.40, and in 0.12 without any picture.

So (a) was wrong: it is no vote in which rows are counted. (b) was wrong, too: behind a picture the
change is not heard more than the description, though without a picture it always is. (c) wins, but
by making the picture nearly unheard: the four visual tokens were trained together, and one of them
says little. (d) does nothing that is larger than luck, or a little harm. About the cause: length
counts for something, since the notebook's figure has visual tokens a tenth as long behind which the
sentence wins, while the picture alone is still named in most prompts. Their number does not give
both: it makes the sentence win and takes the picture's say away.
With joints_seed 1 and 2 the picture is even stronger, 0.92 and 1.00, (b) leaves it at 0.86 and
1.00, and (c) again makes the sentence win in 1.00.

An idea of my own, another question: behind "the thing is" the sentence wins with 0.90, and the
picture alone is still named in 0.94; with joints_seed 1 and 2 0.70 and 0.98 for the sentence. So
the picture's colour does not drown the sentence's; the question decides which of the two is taken.
"""
}


def my_pad_left(prompts):
    longest = max(len(prompt) for prompt in prompts)
    rows = torch.zeros(len(prompts), longest, prompts[0].shape[1])  # (B, T, D)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)  # (B, T)
    for i, prompt in enumerate(prompts):
        rows[i, longest - len(prompt) :] = prompt
        mask[i, longest - len(prompt) :] = 1
    return rows, mask


def my_pad_left__right(prompts):
    """Pads on the right: the last position of a short prompt is then padding."""
    longest = max(len(prompt) for prompt in prompts)
    rows = torch.zeros(len(prompts), longest, prompts[0].shape[1])
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        rows[i, : len(prompt)] = prompt
        mask[i, : len(prompt)] = 1
    return rows, mask


def my_pad_left__no_mask(prompts):
    """Calls every position real, so the zeros are read as if they were words."""
    longest = max(len(prompt) for prompt in prompts)
    rows = torch.zeros(len(prompts), longest, prompts[0].shape[1])
    for i, prompt in enumerate(prompts):
        rows[i, longest - len(prompt) :] = prompt
    return rows, torch.ones(len(prompts), longest, dtype=torch.long)


def my_pad_left__cut(prompts):
    """Cuts all prompts to the shortest instead of filling them up to the longest."""
    shortest = min(len(prompt) for prompt in prompts)
    rows = torch.stack([prompt[-shortest:] for prompt in prompts])
    return rows, torch.ones(rows.shape[:2], dtype=torch.long)


def my_scaled_scores(scores, words, img_ids, factor, min_words):
    scores = scores.clone()
    first = scores[:, img_ids[0]]  # (B,)
    first = first.abs() * factor if factor > 1 else first.clone()
    scores[:, list(img_ids)] = -torch.inf
    scores[:, img_ids[0]] = torch.where(words < min_words, -torch.inf, first)
    return scores


def my_scaled_scores__no_abs(scores, words, img_ids, factor, min_words):
    """Multiplies the score itself, so a negative one gets less likely."""
    scores = scores.clone()
    first = scores[:, img_ids[0]] * max(factor, 1)
    scores[:, list(img_ids)] = -torch.inf
    scores[:, img_ids[0]] = torch.where(words < min_words, -torch.inf, first)
    return scores


def my_scaled_scores__abs_always(scores, words, img_ids, factor, min_words):
    """Takes the absolute value also where the factor is 1."""
    scores = scores.clone()
    first = scores[:, img_ids[0]].abs() * factor
    scores[:, list(img_ids)] = -torch.inf
    scores[:, img_ids[0]] = torch.where(words < min_words, -torch.inf, first)
    return scores


def my_scaled_scores__others_stay(scores, words, img_ids, factor, min_words):
    """Forgets that the later [IMG] tokens can never be chosen."""
    scores = scores.clone()
    first = scores[:, img_ids[0]].clone()
    if factor > 1:
        first = first.abs() * factor
    scores[:, img_ids[0]] = torch.where(words < min_words, -torch.inf, first)
    return scores


def my_scaled_scores__all_rows(scores, words, img_ids, factor, min_words):
    """Rules the picture out in every row as soon as one of them is too early."""
    scores = scores.clone()
    first = scores[:, img_ids[0]].clone()
    if factor > 1:
        first = first.abs() * factor
    scores[:, list(img_ids)] = -torch.inf
    if (words >= min_words).all():
        scores[:, img_ids[0]] = first
    return scores


def my_nucleus(scores, top_p):
    chances = scores.softmax(dim=-1)  # (B, V)
    if top_p == 1:
        return chances
    ordered, order = chances.sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered  # held by likelier words
    kept = ordered.masked_fill(before > top_p, 0)
    return torch.zeros_like(chances).scatter(-1, order, kept)


def my_nucleus__loses_the_last(scores, top_p):
    """Counts the word itself, so the word that crosses the line is lost."""
    chances = scores.softmax(dim=-1)
    ordered, order = chances.sort(dim=-1, descending=True)
    kept = ordered.masked_fill(ordered.cumsum(dim=-1) > top_p, 0)
    return torch.zeros_like(chances).scatter(-1, order, kept)


def my_nucleus__stays_sorted(scores, top_p):
    """Leaves the words sorted: the right numbers, each at another word's place."""
    ordered = scores.softmax(dim=-1).sort(dim=-1, descending=True).values
    return ordered.masked_fill(ordered.cumsum(dim=-1) - ordered > top_p, 0)


def my_nucleus__likely_enough(scores, top_p):
    """Keeps every word that is likelier than 1 - p, whatever they hold together."""
    chances = scores.softmax(dim=-1)
    return chances.masked_fill(chances < 1 - top_p, 0)
