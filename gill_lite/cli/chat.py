"""`gill-lite chat`: an interleaved conversation in the terminal."""

from dataclasses import fields
from pathlib import Path

from gill_lite.answering.answers import Settings, ShownPicture
from gill_lite.cli.options import add_output, add_responder, command, natural, responder_of
from gill_lite.errors import GillError
from gill_lite.profiles import get_profile

SETTINGS = {  # of an answer, and what the option is about; `Settings` has types and defaults
    "max_words": "words that an answer has at most",
    "min_words": "words before the first picture",
    "max_images": "pictures that an answer shows at most",
    "num_retrieved": "candidates to retrieve for a picture",
    "num_generated": "candidates to draw for a picture",
    "ret_scale_factor": "above 1: pictures come more often",
    "gen_scale_factor": "the same once more",
    "temperature": "how freely words are drawn; 0: always the likeliest",
    "top_p": "words are drawn from the likeliest that hold this share",
    "guidance_scale": "how closely a drawn picture follows (default: the profile's)",
    "num_inference_steps": "denoising steps (default: the profile's)",
}


def add_chat(subparsers) -> None:
    """The subcommand and its options."""
    text = (
        "Talk to the model. It answers with words and, where it says so, with a retrieved or "
        "a generated picture. With messages it answers once; without, it reads lines until an "
        "empty one. A message @FILE is a picture; the line /undo takes a turn back."
    )
    parser = command(subparsers, "chat", run, text)
    option = parser.add_argument
    option("message", nargs="*", default=None, help="text, or @picture.png, in order")
    add_responder(parser)
    _add_settings(parser.add_argument_group("answers"))
    add_output(parser, "where the conversation is kept, its pictures beside it", "runs/chat")
    option("--load", type=Path, metavar="DIR", default=None, help="go on with the one kept there")


def _add_settings(group) -> None:
    defaults = {field.name: field.default for field in fields(Settings)}
    for name, text in SETTINGS.items():
        kind = int if name.startswith(("max", "min", "num")) else float
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, type=kind, metavar="N", default=defaults[name], help=text)
    group.add_argument("--force-image", action="store_true", help="a picture in every answer")
    text = "retrieve pictures alone"
    group.add_argument("--no-draw", dest="draw", action="store_false", help=text)
    text = "draw pictures alone"
    group.add_argument("--no-retrieve", dest="retrieve", action="store_false", help=text)
    group.add_argument("--run-seed", type=natural, default=0, metavar="N", help="of the noise")
    text = "pictures that GILL has shown go back into its prompts; officially they do not"
    group.add_argument("--own-pictures", action="store_true", help=text)


def run(arguments) -> None:
    """Answer the messages once, or, when there are none, line after line until an empty one.

    A message "@file" is a picture. The whole conversation so far is the prompt of each answer.
    Raises GillError for a bad picture.
    """
    get_profile(arguments.profile)
    if arguments.message:
        items = [read_message(message) for message in arguments.message]
        _answer(_start(arguments), items, arguments.output_dir)
        return
    print("Write a line, or @picture.png; /undo takes a turn back, an empty line ends.", flush=True)
    conversation = None
    for line in _lines():
        try:
            message = read_message(line)
            conversation = conversation or _start(arguments)
            if message == "/undo":
                conversation.undo()
                conversation.save(arguments.output_dir)
            else:
                _answer(conversation, [message], arguments.output_dir)
        except GillError as error:  # a mistyped file name should not end the conversation
            print(error)


def read_message(message: str):
    """Text as it is, "@file" as a PIL image. Raises GillError if that is no readable image."""
    from gill_lite.datasets.images import open_image

    return open_image(message[1:]) if message.startswith("@") else message


def _start(arguments):
    """The conversation that the options ask for."""
    from gill_lite.answering.conversation import Conversation

    names = (*SETTINGS, "force_image", "draw", "retrieve", "run_seed", "own_pictures")
    settings = {name: getattr(arguments, name) for name in names}
    Settings.of({name: settings[name] for name in names[:-2]})  # before anything is loaded
    responder = responder_of(arguments)
    if arguments.load is None:
        return Conversation(responder, **settings)
    conversation = Conversation.load(arguments.load, responder)
    conversation.settings = settings
    return conversation


def _lines():
    """Lines of the terminal until an empty one or the end of input."""
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if not line:
            return
        yield line


def _answer(conversation, items, folder: Path) -> None:
    """Say the items, print the answer, and keep the conversation."""
    answer = conversation.say(*items)
    conversation.save(folder)
    if left_out := conversation.turns[-1].left_out:
        print(f"(no room for the first {left_out} turns: they are left out of the prompt)")
    for place, item in enumerate(answer, start=1):
        prefix = f"turn{len(conversation.turns):02d}_{place}"
        print(_told(item, folder / prefix) if isinstance(item, ShownPicture) else item)
    if not answer:
        print("(no words and no picture)")


def _told(shown: ShownPicture, prefix: Path) -> str:
    """A picture in words: which is shown and why, and where its candidates lie."""
    from gill_lite.answering.conversation import picture_names

    kind = {None: "none could be had", "gen": "generated", "ret": "retrieved"}[shown.source]
    lines = [f"picture, {'asked for' if shown.forced else 'said by the model'}: {kind}"]
    if shown.probabilities:
        generate, retrieve = shown.probabilities
        lines.append(f"  decision: generate {generate:.2f}, retrieve {retrieve:.2f}")
    for kind, names in picture_names(prefix.name, shown).items():
        for name, one in zip(names, getattr(shown, kind), strict=True):
            lines.append(f"  {kind}: {prefix.with_name(name)}.png, cosine {one.score:.3f}")
    if shown.passed_over:
        many, first = len(shown.passed_over), shown.passed_over[0]
        lines.append(f"  passed over: {many} that could not be opened, the first is {first}")
    return "\n".join(lines)
