"""`gill-lite demo`: the conversation as a web page."""

from pathlib import Path

from gill_lite.cli.options import add_placement, add_profile, command, natural


def add_demo(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Serve a page to talk to the model in a browser. On this computer alone, unless --host "
        "names another address; it needs no network."
    )
    parser = command(subparsers, "demo", run, text)
    add_profile(parser)
    option = parser.add_argument
    option("--seed", type=natural, default=0, metavar="N", help="which joints")
    text = "joints of `gill-lite train` or `convert` (default: the shipped ones of --seed)"
    option("--joints", type=Path, metavar="DIR", default=None, help=text)
    text = "folder of the pictures that the joints' index names by file"
    option("--images", type=Path, metavar="DIR", default=None, help=text)
    add_placement(parser)
    option("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 for all that ask")
    option("--port", type=natural, default=7860, metavar="N", help="0 for any that is free")


def run(arguments) -> None:
    """Load the model and serve the page until it is interrupted."""
    from gill_lite.answering.respond import load_responder
    from gill_lite.demo.serve import serve

    placement = {name: getattr(arguments, name) for name in ("device", "dtype", "quantize")}
    responder = load_responder(
        arguments.profile, arguments.seed, arguments.joints, images=arguments.images, **placement
    )
    serve(responder, arguments.host, arguments.port)
