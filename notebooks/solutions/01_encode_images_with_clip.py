"""Solutions of 01_encode_images_with_clip, what to look for, and typical wrong answers."""

import torch.nn.functional as F

LOOK_FOR = {
    "my_cosines": "Length 1 along the last axis, then one product, captions in the rows. Ask: what "
    "changes if a picture's vector is doubled? (Nothing: only the direction counts.)",
    "my_zero_shot": "The mean over prompts, then length 1 again, then the largest cosine among the "
    "classes. Ask: when is the mean of unit vectors short? (When the prompts disagree.)",
    "my_chance": "The answer is chosen on the training labels and judged on the test labels. Ask: "
    "can this be below one over the number of classes? (Yes, where the two sets differ.)",
    "my_left_out": "A prediction for both attributes, made before the run, for zero-shot and probe "
    "apart; what came out; zero-shot falls to chance for want of a word; an explanation why the "
    "probe need not; why the two attributes differ. One point each. A wrong prediction that is "
    "well explained is worth full points.",
}

TEXTS = {
    "my_left_out": """
Chosen: colour and place.

Prediction: zero-shot falls to chance for both, since the words are never learned. The probe falls
to chance for colour; for place, too, since nothing rewards keeping it.

Seen: zero-shot as predicted for both, colour 0.11 (chance 0.15) and place 0.28 (chance 0.26). The
probe reads colour at 0.33 and place at 0.58, where it had 1.00 both times. The other attributes
stay as they were.

Explanation: the untrained network lets place through nearly whole (the line "ours, untrained":
0.97), since it colours half the picture, but only half of the colour of a small object (0.54).
Training without the words adds nothing. It takes away in part: pictures that differ only in place
have the same captions, so what differs between them is noise to the quiz. But nothing demands that
all of it go. So "captions decide what CLIP keeps" is half of the truth: they decide what is
brought up; what is there anyway fades slowly. With time left out this is plainer still: zero-shot
falls to 0.49 (chance 0.56), and the probe still reads it at 0.93.
"""
}


def my_cosines(text, image):
    return F.normalize(text, dim=1) @ F.normalize(image, dim=1).T  # (B, N)


def my_cosines__dot_product(text, image):
    """Forgets to bring the vectors to length 1."""
    return text @ image.T


def my_cosines__wrong_axis(text, image):
    """Normalises each column (one number over all vectors) instead of each vector."""
    return F.normalize(text, dim=0) @ F.normalize(image, dim=0).T


def my_cosines__pictures_in_rows(text, image):
    """Gives (N, B): rows and columns the wrong way round."""
    return F.normalize(image, dim=1) @ F.normalize(text, dim=1).T


def my_zero_shot(images, prompts):
    classes = F.normalize(prompts.mean(dim=1), dim=1)  # (C, P)
    return (images @ classes.T).argmax(dim=1)  # (N,)


def my_zero_shot__not_rescaled(images, prompts):
    """Takes the mean as it is: classes whose prompts agree are longer and win too often."""
    return (images @ prompts.mean(dim=1).T).argmax(dim=1)


def my_zero_shot__first_prompt(images, prompts):
    """Looks at the first prompt of each class only."""
    return (images @ prompts[:, 0].T).argmax(dim=1)


def my_zero_shot__best_picture(images, prompts):
    """Takes the best picture of each class instead of the best class of each picture."""
    classes = F.normalize(prompts.mean(dim=1), dim=1)
    return (images @ classes.T).argmax(dim=0)


def my_chance(train, test):
    favourite = max(set(train), key=train.count)
    return test.count(favourite) / len(test)


def my_chance__one_over_classes(train, test):
    """One over the number of classes: right only where all are equally frequent."""
    return 1 / len(set(train))


def my_chance__peeks(train, test):
    """Chooses the answer on the test labels, which somebody who never looks cannot know."""
    return max(test.count(label) for label in set(test)) / len(test)


def my_chance__judged_on_training(train, test):
    """Counts on the training labels instead of the test labels."""
    return max(train.count(label) for label in set(train)) / len(train)
