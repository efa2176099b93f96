"""`gill-lite chat`: an interleaved conversation in the terminal."""

from pathlib import Path

from gill_lite.errors import GillError
from gill_lite.profiles import get_profile


def chat(
    messages: list[str], profile: str, seed: int, joints: Path | None, output_dir: Path
) -> None:
    """Answer `messages` once, or, when there are none, line after line until an empty one.

    A message "@file" is an image. The whole conversation so far is the prompt of each answer.
    The answer's images are written to `output_dir`. Raises GillError for a bad image.
    """
    get_profile(profile)
    prompt = [read_message(message) for message in messages]
    if messages:
        responder = _load(profile, seed, joints)
        _answer(responder, prompt, output_dir, turn=1)
        return
    print("Write a line, or @picture.png; an empty line ends.", flush=True)
    responder = None
    for turn, line in enumerate(_lines(), start=1):
        try:
            message = read_message(line)
            responder = responder or _load(profile, seed, joints)
            answer = _answer(responder, [*prompt, message], output_dir, turn)
        except GillError as error:  # a mistyped file name should not end the conversation
            print(error)
            continue
        prompt += [message, answer] if answer.strip() else [message]  # it may say [IMG0] at once


def read_message(message: str):
    """Text as it is, "@file" as a PIL image. Raises GillError if that is no readable image."""
    from gill_lite.datasets.images import open_image

    return open_image(message[1:]) if message.startswith("@") else message


def _load(profile: str, seed: int, joints: Path | None):
    from gill_lite.answering.respond import load_responder

    return load_responder(profile, seed=seed, joints=joints)


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


def _answer(responder, prompt: list, output_dir: Path, turn: int) -> str:
    """Print the answer's text, save its images, and return the text."""
    response = responder.respond(prompt)
    print(response.text)
    if response.retrieved is None and response.retrieved_id is not None:
        print(f"retrieved: {response.retrieved_id} (cosine {response.retrieved_score:.3f})")
    if response.decision is not None:
        print(f"decision: {'generate' if response.decision == 'gen' else 'retrieve'}")
    for name in ("retrieved", "generated"):
        image = getattr(response, name)
        if image is not None:
            output_dir.mkdir(parents=True, exist_ok=True)
            path = output_dir / f"turn{turn:02d}_{name}.png"
            image.save(path)
            print(f"{name}: {path}")
    return response.text
