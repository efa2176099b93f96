"""`gill-lite demo`: the conversation as a web page."""

from gill_lite.cli.options import add_responder, command, natural, responder_of


def add_demo(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Serve a page to talk to the model in a browser. On this computer alone, unless --host "
        "names another address; the mini world needs no network."
    )
    parser = command(subparsers, "demo", run, text)
    add_responder(parser)
    option = parser.add_argument
    option("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 for all that ask")
    option("--port", type=natural, default=7860, metavar="N", help="port; 0 for any that is free")


def run(arguments) -> None:
    """Load the model, and serve the page until it is interrupted."""
    from gill_lite.demo.serve import listen, serve

    with listen(arguments.host, arguments.port) as server:  # told before models are loaded
        serve(responder_of(arguments), server)
