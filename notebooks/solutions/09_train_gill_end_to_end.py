"""Solutions of 09_train_gill_end_to_end, what to look for, and typical wrong answers."""

LOOK_FOR = {
    "my_learning_rate": "The decay is counted from the end of the warm-up, in whole times. Ask: "
    "what does step 0 change? (Nothing, its rate is 0; the [IMG] rows have their length already.)",
    "my_adamw": "Both corrections, and weight decay on the value itself. Ask: how far does a "
    "number move in the first step, whatever its gradient? (By the learning rate: the fraction is "
    "then the gradient divided by its own size.)",
    "my_change": "One change only, a prediction that follows from what the part does, held-out "
    "losses compared with those of the unchanged run, an honest word about luck. One point each, "
    "the fifth for a second seed. A prediction that failed and is explained earns full points.",
}

TEXTS = {
    "my_change": """
Change: `{"join_probability": 0.0}`, at the defaults (32 steps, seed 0). Expected: captions are no
longer joined, so the two language losses should fall, since rows are shorter and simpler.
Generation and retrieval should hardly move. Stories, which are many sentences, should get worse:
joined captions are the longest rows that the joints ever see.

(The numbers below are of earlier weights of the mini world. With those that ship now the unchanged
run scores much lower, 0.33 with five captions and 0.32 with one, so read the reasoning, not the
values.)

Seen, held-out losses without and with the change: captioning 0.96 and 0.94, img_lm 1.13 and 1.13,
retrieval 2.23 and 1.93, generation 8.17 and 7.68. CLIP similarity with five captions 0.50 and 0.64,
a paired difference of 0.15 [0.01, 0.24]; with one caption 0.30 and 0.28, -0.02 [-0.11, 0.08].

So the prediction was wrong for stories: after so few steps they got better, by more than the luck
of the stories. A supposed reason: in a joined row the second caption's [IMG] tokens stand behind
another caption, which is one more thing to learn; without joining all steps go into the plain
case. Whether joining pays off later, 32 steps cannot say.

How much is luck? With `seed = 1` and no change: retrieval 1.39, generation 7.49, five captions
0.60. Another seed moves the numbers as much as the change did, so one seed is not enough to say
that the change helped.

A change that is larger: `{"warmup_steps": 100}` lets 32 steps end at a third of the highest rate.
Generation 9.56, retrieval 3.59, five captions 0.12, a paired difference of -0.38 [-0.52, -0.26].
That was predicted: a warm-up longer than the training leaves no time to go anywhere.
"""
}


def my_learning_rate(recipe, step):
    if step < recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    times = (step - recipe.warmup_steps) // recipe.lr_decay_every
    return recipe.learning_rate * recipe.lr_decay**times


def my_learning_rate__from_zero(recipe, step):
    """Counts the decay from step 0 instead of from the end of the warm-up."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    return recipe.learning_rate * recipe.lr_decay ** (step // recipe.lr_decay_every)


def my_learning_rate__smooth(recipe, step):
    """Lets the rate fall all the time, because it divides without dropping the rest."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    times = (step - recipe.warmup_steps) / recipe.lr_decay_every
    return recipe.learning_rate * recipe.lr_decay**times


def my_learning_rate__one_early(recipe, step):
    """Counts steps from 1, so that the first step moves already."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    times = (step - recipe.warmup_steps) // recipe.lr_decay_every
    return recipe.learning_rate * recipe.lr_decay**times


def my_adamw(value, gradient, mean, square, step, rate):
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.95 * square + 0.05 * gradient**2
    mean, square = mean / (1 - 0.9**step), square / (1 - 0.95**step)
    return (1 - rate * 0.01) * value - rate * mean / (square.sqrt() + 1e-8)


def my_adamw__uncorrected(value, gradient, mean, square, step, rate):
    """Leaves out the correction of the young means."""
    mean = 0.9 * mean + 0.1 * gradient
    square = 0.95 * square + 0.05 * gradient**2
    return (1 - rate * 0.01) * value - rate * mean / (square.sqrt() + 1e-8)


def my_adamw__decay_in_gradient(value, gradient, mean, square, step, rate):
    """Adds weight decay to the gradient, as the older Adam does: there its size cancels out."""
    return my_adamw(value / (1 - rate * 0.01), gradient + 0.01 * value, mean, square, step, rate)


def my_adamw__no_decay(value, gradient, mean, square, step, rate):
    """Forgets weight decay."""
    return my_adamw(value / (1 - rate * 0.01), gradient, mean, square, step, rate)
