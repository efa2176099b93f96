"""`gill-lite index`: a folder of one's own pictures, to be retrieved from."""

from pathlib import Path

from gill_lite.cli.options import (
    add_joints,
    add_max_skipped,
    add_output,
    add_placement,
    command,
    natural,
)
from gill_lite.errors import GillError


def add_index(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Embed a folder of pictures, so that answers show those that fit. The index lies beside "
        "joints: in their own folder, or in a new one, which gets a copy of them. chat and demo "
        "then read it with --joints. Stopped, the same command goes on."
    )
    parser = command(subparsers, "index", run, text)
    help_text = "pictures, in folders or not; without one the index is taken that is there"
    parser.add_argument("pictures", type=Path, nargs="?", metavar="FOLDER", help=help_text)
    help_text = (
        "let FAISS search the index, in a file that needs not fit into memory (pip install "
        "'gill-lite[faiss]'); exact, or with LISTS faster, by a sixteenth of so many lists"
    )
    parser.add_argument(
        "--faiss", type=natural, nargs="?", const=0, metavar="LISTS", default=None, help=help_text
    )
    add_output(parser, "folder of joints that the index goes into", required=True)
    add_joints(parser)
    add_max_skipped(parser)
    add_placement(parser)


def run(arguments) -> None:
    """Embed the pictures and write the index; let FAISS search it where that is asked for."""
    folder = arguments.output_dir
    if arguments.pictures:
        embed(arguments, folder)
    elif arguments.faiss is None:
        raise GillError("name a folder of pictures to index, or --faiss for an index that is there")
    if arguments.faiss is not None:
        from gill_lite.answering.faiss_index import add_faiss
        from gill_lite.answering.index import INDEX

        add_faiss(folder / INDEX, arguments.faiss)
    print(f"the index is in {folder}; talk about it with `gill-lite chat --joints {folder}`")


def embed(arguments, folder: Path) -> None:
    """Embed the pictures and write the index beside joints in `folder`."""
    from gill_lite.answering.own_pictures import index_folder
    from gill_lite.answering.respond import load_responder
    from gill_lite.model.checkpoint import WEIGHTS, joints_folder

    joints = arguments.joints
    if joints is None and (folder / WEIGHTS).is_file():
        joints = folder
    placement = {name: getattr(arguments, name) for name in ("device", "dtype", "quantize")}
    responder = load_responder(arguments.profile, arguments.seed, joints, **placement)
    joints = joints or joints_folder("gill", arguments.seed)
    index_folder(responder, arguments.pictures, joints, folder, arguments.max_skipped)
