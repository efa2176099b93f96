"""What `gill-lite fetch` brings, from where, how large and under which licence.

Sizes are exact where a sha256 stands beside them and about right elsewhere; a size of 0 is
not known. Where `sha256` is None, upstream publishes none: it is recorded at the first
download in checksums.json and checked ever after.
"""

from dataclasses import dataclass, fields, replace

from gill_lite.errors import GillError
from gill_lite.files import read_json
from gill_lite.profiles import DOWNLOADS, PAPER, REVISIONS

MB, GB = 10**6, 10**9


@dataclass(frozen=True)
class File:
    """One file to download into the data folder."""

    path: str  # where it goes, below the data folder
    url: str
    kind: str  # json, tsv, torch, zip or tar
    size: int  # bytes
    sha256: str | None = None
    members: tuple[str, ...] = ()  # of an archive: what to unpack beside it, `*` as in the shell
    unpacked: int = 0  # bytes of these members, about


@dataclass(frozen=True)
class Model:
    """One model on the Hugging Face hub, into the hub's own cache."""

    repo: str
    revision: str | None  # full commit hash; None: the one of the first download is recorded
    patterns: tuple[str, ...]  # which files; never pickles or code
    size: int


@dataclass(frozen=True)
class Source:
    """One word that `gill-lite fetch` takes."""

    name: str
    licence: str
    files: tuple[File, ...] = ()
    model: Model | None = None
    pictures: str | None = None  # the VIST file whose pictures to download one by one
    pictures_size: int = 0
    note: str = ""


TEXT = ("*.json", "*merges.txt")  # configurations and tokenizers
GITHUB = "https://github.com/kohjingyu/gill/raw/main"
DROPBOX = "https://www.dropbox.com/s"
VIST = "https://visionandlanguage.net/VIST/json_files/story-in-sequence"


def _model(repo: str, *weights: str) -> Model:
    return Model(repo, REVISIONS.get(repo), (*TEXT, *weights), DOWNLOADS[repo] * MB)


def _checkpoint(name: str, kind: str, size: int, sha256: str | None = None) -> File:
    return File(f"gill/{name}", f"{GITHUB}/checkpoints/gill_opt/{name}", kind, size, sha256)


def _votes(kind: str, size: int, sha256: str) -> File:
    name = f"PartiPromptsAllDecisions_{kind}.tsv"
    return File(f"partiprompts/{name}", f"{GITHUB}/data/{name}", "tsv", size, sha256)


def _visdial(name: str, place: str, size: int, member: str, unpacked: int) -> File:
    url = f"{DROPBOX}/{place}/{name}?dl=1"
    return File(f"visdial/{name}", url, "zip", size * MB, None, (member,), unpacked * MB)


SOURCES = {
    source.name: source
    for source in (
        Source(
            "gill",
            "Apache-2.0",
            (
                _checkpoint(
                    "model_args.json", "json", 741,
                    "83f5afcfd1ad34495ef10cbd77414d09d866cc5dcbfc37dad06cce6274e66705",
                ),
                _checkpoint("pretrained_ckpt.pth.tar", "torch", 96 * MB),
                _checkpoint(
                    "decision_model.pth.tar", "torch", 33_831,
                    "6b039007a302c82f2cd51f82a261ec12837f31ce1c06b34ab2ade108a2d2a850",
                ),
            ),
            note="retrieval embeddings of CC3M (3 GB) lie on Google Drive, see docs/data.md",
        ),
        Source(
            "clip",
            "MIT (OpenAI's CLIP repository)",
            model=_model(PAPER.vision, "model.safetensors"),
        ),
        Source(
            "opt",
            "OPT licence, research only",
            model=_model(PAPER.lm, "model*.safetensors"),
            note="the pinned commit has pickles only: they are turned into safetensors here",
        ),
        Source(
            "sd",
            "CreativeML OpenRAIL-M",
            model=_model(
                PAPER.diffusion,
                "text_encoder/model.safetensors",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/diffusion_pytorch_model.safetensors",
            ),
        ),
        Source(
            "vist",
            "pictures: each its own Flickr licence",
            (
                File(
                    "vist/SIS-with-labels.tar.gz", f"{VIST}/SIS-with-labels.tar.gz", "tar",
                    23 * MB, members=("val.story-in-sequence.json",), unpacked=25 * MB,
                ),
            ),
            pictures="vist/val.story-in-sequence.json",
            pictures_size=28 * GB,
        ),
        Source(
            "visdial",
            "dialogues: CC BY 4.0; pictures: as COCO's",
            (
                _visdial(
                    "visdial_1.0_val.zip", "ibs3a0zhw74zisc", 20, "visdial_1.0_val.json", 80
                ),
                _visdial(
                    "VisualDialog_val2018.zip", "twmtutniktom7tu", 350,
                    "VisualDialog_val2018/VisualDialog_val2018_*.jpg", 350,
                ),
            ),
        ),
        Source(
            "partiprompts",
            "Apache-2.0",
            (
                _votes(
                    "Alignment", 157_217,
                    "d4b4db42cede8fca6a84a88a4a4d238d113109482391615417c1c1eef441cc37",
                ),
                _votes(
                    "Realism", 157_204,
                    "28eadd13856a5703c9fde212aad05336f554293824081d7b7d2e68fd23185dd8",
                ),
            ),
        ),
    )
}  # fmt: skip


def load_sources(path=None) -> dict[str, Source]:
    """The table, changed by the JSON file `path`: {"vist": {"files": {PATH: {"url": ...}}}}.

    Beside "files" (by the path below the data folder) a source may change "model" and
    "pictures_size". Raises GillError naming what the table does not know.
    """
    table = dict(SOURCES)
    for name, changes in (read_json(path, "sources file") if path else {}).items():
        if name not in table:
            raise GillError(f"{path}: no source '{name}'; known are {', '.join(table)}")
        table[name] = _changed(table[name], dict(changes), f"{path}: source '{name}'")
    return table


def _changed(source: Source, changes: dict, where: str) -> Source:
    by_path = changes.pop("files", {})
    known = [file.path for file in source.files]
    if unknown := sorted(set(by_path) - set(known)):
        raise GillError(f"{where} has no file '{unknown[0]}'; known are {', '.join(known)}")
    new = {"files": tuple(_replaced(f, by_path.get(f.path, {}), where) for f in source.files)}
    if source.model:
        new["model"] = _replaced(source.model, changes.pop("model", {}), where)
    return _replaced(source, changes | new, where)


def _replaced(record, changes: dict, where: str):
    known = [field.name for field in fields(record)]
    if unknown := sorted(set(changes) - set(known)):
        raise GillError(f"{where} has no setting '{unknown[0]}'; known are {', '.join(known)}")
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    return replace(record, **lists)


def human(size: int) -> str:
    """Bytes as a person reads them."""
    for unit, of in (("GB", GB), ("MB", MB), ("kB", 1000)):
        if size >= of:
            return f"{size / of:.1f} {unit}"
    return f"{size} bytes" if size else "not known"
