"""Solutions of 05_draw_with_diffusion, what to look for, and typical wrong answers."""

import torch

LOOK_FOR = {
    "my_mixture": "The shares get the axes that they lack, and each root its own partner. Ask: "
    "why roots? (So that the spread of the mixture stays 1 if both have spread 1.)",
    "my_guided": "The first half is without captions. Ask: what does a scale of 0 draw, and a "
    "negative one? (What an empty caption asks for; the contrary of the caption.)",
    "my_change_of_mind": "Predictions that follow from the figure of section 3 (in the noise the "
    "caption decides), made before the run; several noises; attributes told apart; a word on why "
    "some are settled earlier. One point each, the fifth for a second pair of scenes.",
}

TEXTS = {
    "my_change_of_mind": """
Predicted: with k = 1 nearly everything follows the second caption, with k = 4 nearly everything the
first; place and time are settled first, since they fill the picture, shape and colour last.

Seen, "a big red ball on the left at the beach by day ." and "a big green cone on the right in the
snow at night .", 12 noises, share that follows the first caption for k = 1, 2, 3, 4 of five steps:
time 0.67, 1.00, 1.00, 1.00; place 0.00, 1.00, 1.00, 1.00; position 0.00, 0.08, 1.00, 1.00; shape
0.00, 0.00, 0.00, 0.50. Colour is the last: with k = 4 no thing is red, and nearly all are green.

So the order is as predicted, but steeper: one step settles day or night in most, two the place,
three the position. Each was settled by a caption that was then taken back, and the later steps
could not change it: what the denoiser sees by then outweighs what it reads, as section 3 shows for
small times. Not predicted: shapes between the two. With k = 3 a third are cones and none is a ball;
the probe reads boxes and stars. And the last step alone can still turn a red thing green.
"""
}


def my_mixture(latents, noise, clean):
    share = clean[:, None, None, None]  # (B, 1, 1, 1)
    return share.sqrt() * latents + (1 - share).sqrt() * noise


def my_mixture__last_axis(latents, noise, clean):
    """Lines the times up with the columns of the latents instead of the rows of the batch."""
    return clean.sqrt() * latents + (1 - clean).sqrt() * noise


def my_mixture__no_roots(latents, noise, clean):
    """Forgets the roots: in the middle the mixture then has too small a spread."""
    share = clean[:, None, None, None]
    return share * latents + (1 - share) * noise


def my_mixture__swapped(latents, noise, clean):
    """Gives the noise the picture's share."""
    return my_mixture(noise, latents, clean)


def my_guided(said, scale):
    without, with_caption = said.chunk(2)
    return without + scale * (with_caption - without)


def my_guided__from_the_caption(said, scale):
    """Starts from what is said with the caption, so that scale 1 already exaggerates."""
    without, with_caption = said.chunk(2)
    return with_caption + scale * (with_caption - without)


def my_guided__halves_swapped(said, scale):
    """Takes the first half for the captions and goes away from what they say."""
    with_caption, without = said.chunk(2)
    return without + scale * (with_caption - without)


def my_guided__every_other_row(said, scale):
    """Takes rows in turn for without and with, though the halves lie one behind the other."""
    without, with_caption = said[0::2], said[1::2]
    return torch.lerp(without, with_caption, scale)
