"""CC3M: the command that downloads it, for img2dataset in an environment of its own.

img2dataset pins old versions of what gill-lite uses, so it is not a dependency.
"""

import json
import shlex
from pathlib import Path

from gill_lite.files import write_json, write_text

FORM = "https://ai.google.com/research/ConceptualCaptions/download"
LISTS = {  # folder of the shards -> the file of Google's form
    "train": "Train_GCC-training.tsv",
    "validation": "Validation_GCC-1.1.0-Validation.tsv",
}
SETTINGS = {
    "input_format": "tsv",
    "url_col": "url",
    "caption_col": "caption",
    "output_format": "webdataset",
    "number_sample_per_shard": 10_000,
    "image_size": 256,
    "resize_mode": "keep_ratio",  # the shorter side; CLIP's processor crops to 224
    "resize_only_if_bigger": True,
    "encode_quality": 95,
    "processes_count": 16,
    "thread_count": 64,
    "timeout": 10,
    "retries": 1,
    "incremental_mode": "incremental",  # run again: shards that are complete are kept
    "disallowed_header_directives": '["noai", "noimageai", "noindex", "noimageindex"]',
}


def write_cc3m(folder) -> str:
    """Write img2dataset.json and img2dataset.sh into `folder`; returns what to do, as text."""
    folder = Path(folder)
    write_json(folder / "img2dataset.json", {"lists": LISTS, "settings": SETTINGS})
    script = write_text(folder / "img2dataset.sh", _script())
    script.chmod(0o755)
    shards = " ".join(str(folder / f"{name}_shards") for name in LISTS)
    return (
        f"cc3m: wrote {script}. Download the two lists from {FORM} into {folder}, run the "
        f"script (once: about an hour on 16 cores and 2 Gbit/s), then train on {shards}.\n\n"
        f"{_command('train')}\n"
    )


def _command(name: str) -> str:
    def text(value) -> str:
        return value if isinstance(value, str) else json.dumps(value).replace("true", "True")

    options = {"url_list": f"{name}.tsv", "output_folder": f"{name}_shards", **SETTINGS}
    lines = [f"--{option} {shlex.quote(text(value))}" for option, value in options.items()]
    return " \\\n  ".join([".venv/bin/img2dataset", *lines])


def _script() -> str:
    lines = [
        "#!/bin/sh",
        "# CC3M as webdataset shards. Written by `gill-lite fetch cc3m`; settings and the two",
        f"# lists in img2dataset.json. The lists come from {FORM}.",
        "set -eu",
        'cd "$(dirname "$0")"',
        "test -d .venv || python3 -m venv .venv  # its own: it needs old versions of libraries",
        ".venv/bin/python -m pip install --quiet img2dataset",
    ]
    for name, source in LISTS.items():
        lines += [
            "",
            f"test -f {source} || {{ echo 'download {source} from {FORM}' >&2; exit 1; }}",
            f"{{ printf 'caption\\turl\\n'; cat {source}; }} > {name}.tsv",
            _command(name),
        ]
    return "\n".join(lines) + "\n"
