"""What pytest needs outside of tests/: notebooks are compared in an environment of our own."""

from contextlib import ExitStack


def pytest_configure(config):
    """nbval's kernels start with our settings, whatever the user's environment says."""
    if getattr(config.option, "nbval", False):
        from gill_lite.course.kernels import own_environment

        stack = ExitStack()
        stack.enter_context(own_environment())
        config.add_cleanup(stack.close)
