"""`gill-lite index`: a folder of one's own pictures, to be retrieved from."""

from pathlib import Path

from gill_lite.cli.options import (
    add_joints,
    add_max_skipped,
    add_output,
    add_placement,
    command,
)


def add_index(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Embed a folder of pictures, so that answers show those that fit. The index lies beside "
        "joints: in their own folder, or in a new one, which gets a copy of them. chat and demo "
        "then read it with --joints. Stopped, the same command goes on."
    )
    parser = command(subparsers, "index", run, text)
    parser.add_argument("pictures", type=Path, metavar="FOLDER", help="pictures, in folders or not")
    add_output(parser, "folder of joints that the index goes into", required=True)
    add_joints(parser)
    add_max_skipped(parser)
    add_placement(parser)


def run(arguments) -> None:
    """Embed the pictures and write the index."""
    from gill_lite.answering.own_pictures import index_folder
    from gill_lite.answering.respond import load_responder
    from gill_lite.model.checkpoint import WEIGHTS, joints_folder

    folder, joints = arguments.output_dir, arguments.joints
    if joints is None and (folder / WEIGHTS).is_file():
        joints = folder
    placement = {name: getattr(arguments, name) for name in ("device", "dtype", "quantize")}
    responder = load_responder(arguments.profile, arguments.seed, joints, **placement)
    joints = joints or joints_folder("gill", arguments.seed)
    index_folder(responder, arguments.pictures, joints, folder, arguments.max_skipped)
    print(f"the index is in {folder}; talk about it with `gill-lite chat --joints {folder}`")
