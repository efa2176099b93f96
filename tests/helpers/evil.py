"""What must never be run."""


class Evil:
    """A pickle of it writes the file `mark` when it is opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))
