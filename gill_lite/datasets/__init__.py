"""Readers of the official file formats; the mini world is exported into the same ones.

Nothing here knows which world a file comes from: `read_vist` takes the real VIST and the
mini one alike. Each reader returns a `Reading` that counts what it skipped, and why.

A new dataset is a reader beside `vist.py`. To evaluate on it, one `Task` in
`evaluation/tasks.py`; to train on it, a subclass of `pairs.Pairs`, opened in `cli/train.py`; to
download it, one entry in `fetching/sources.py`.
"""
