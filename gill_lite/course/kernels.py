"""A notebook executed headless, in a kernel and an environment of our own."""

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from gill_lite.course.chapters import read_chapter
from gill_lite.errors import GillError
from gill_lite.provenance import repository_root, usable_cores

START_SECONDS = 300  # on a busy machine a kernel may need more than the usual minute
OPTIONS = (
    "--IPKernelApp.log_level=CRITICAL",  # its own complaints at Ctrl-C
    "--HistoryManager.hist_file=:memory:",
)
INLINE = "module://matplotlib_inline.backend_inline"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def execute(source: Path, output: Path, parameters: dict, progress: bool = True) -> None:
    """Run `source` from a fresh kernel and write the executed copy to `output`.

    What the cells write to stderr (their progress bars) is shown as it comes. Raises GillError
    for a parameter the notebook does not have, and papermill's PapermillExecutionError, after
    writing `output` up to the failing cell, when a cell fails.
    """
    with own_environment():
        run_notebook(source, output, parameters, sys.stderr if progress else None, progress)


def run_notebook(
    source: Path, output: Path, parameters: dict, stderr=None, progress=False, kernel=None
) -> None:
    """`execute` inside `own_environment`. `stderr`: a text file for what the cells write there.

    While it runs, what is there stands beside `output` with a dot before its name: whoever reads
    `output` finds the one before or the new one, never half of one.

    kernel: an AsyncKernelManager to start for it, the caller's to end. With one, several threads
    may run notebooks: papermill would change the folder of all of them.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from nbclient.util import run_sync

    read_chapter(source)
    try:
        known = papermill.inspect_notebook(str(source))
    except (ValueError, AttributeError) as error:
        raise GillError(
            f"{source.name} names no kernel; restore it from git, or set its kernelspec to python3"
        ) from error
    for name in parameters:
        if name not in known:
            raise GillError(
                f"{source.name} has no parameter '{name}'; it has {', '.join(known) or 'none'}."
            )
    output.parent.mkdir(parents=True, exist_ok=True)
    running = output.with_name(f".{output.name}")
    if kernel:
        run_sync(kernel.start_kernel)(cwd=str(repository_root()), extra_arguments=[*OPTIONS])
    try:
        papermill.execute_notebook(
            str(source),
            str(running),
            parameters=parameters,
            kernel_name="python3",
            start_timeout=START_SECONDS,
            cwd=None if kernel else str(repository_root()),
            progress_bar={"desc": source.stem, "unit": "cell"} if progress else False,
            stderr_file=stderr,
            extra_arguments=[*OPTIONS],
            km=kernel,
        )
    except (DeadKernelError, papermill.PapermillExecutionError):
        running.replace(output)
        raise
    running.replace(output)


@contextmanager
def own_environment():
    """What a kernel started inside depends on is ours: this interpreter, figures in the notebook,
    no more threads than cores, asserts that are heard and warnings that are no errors, Jupyter's
    and IPython's folders. What the user has set is put back.
    """
    import matplotlib
    from ipykernel.kernelspec import write_kernel_spec

    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="gill-lite-jupyter-") as folder:
        write_kernel_spec(Path(folder) / "kernels" / "python3")
        ours = {"MPLBACKEND": INLINE, "JUPYTER_PATH": folder, "IPYTHONDIR": f"{folder}/ipython",
                "JUPYTER_RUNTIME_DIR": f"{folder}/runtime",
                "JUPYTER_CONFIG_DIR": f"{folder}/config",
                "MPLCONFIGDIR": matplotlib.get_configdir(),  # a folder that can be written to
                "PYTHONOPTIMIZE": "", "PYTHONWARNINGS": ""}  # fmt: skip
        for name in THREADS:
            if os.environ.get(name, "").isdecimal() and int(os.environ[name]) > usable_cores():
                ours[name] = str(usable_cores())
        os.environ.update(ours)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
