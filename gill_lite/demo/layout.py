"""What stands where on the page, and which click does what."""

import gradio as gr

from gill_lite.demo.examples import EXAMPLES
from gill_lite.demo.page import Page
from gill_lite.world.scene import ATTRIBUTES

KEPT = (60, 900)  # seconds: how often files are looked through, and how old one may become
ABOUT = """# GILL
Words and pictures in, words and pictures out: a language model that draws or looks up a picture
where it says **[IMG]**. What you send is forgotten when you close the page.
"""
MINI = """It lives in a *mini world* of some 160 words: a ball, box, cone or star at the
beach, in the forest, the desert or the snow. Try a conversation below, or write, say,
“a big red ball at the beach .”"""
HEAT = """How much the [IMG] tokens of the last picture attend to what stands before them: the mean
over all layers, heads and [IMG] tokens, without the beginning of the sequence. It says where the
model looks, not why it draws what it does."""
CSS = """
#page {max-width: 1240px; margin: auto; gap: .8em}
#chat figure {display: flex; flex-wrap: wrap; gap: .2em .8em; margin: .3em 0}
#chat figure img {width: 10em; border-radius: 6px; margin: 0}
#chat figcaption, #chat details {font-size: .85em; color: var(--body-text-color); max-width: 18em}
#chat details {flex-basis: 100%; max-width: none}
#chat details figure img {width: 5em}
#chat summary, .try button {cursor: pointer}
#chat p {margin: .2em 0}
#unknown u {text-decoration: underline wavy #dc2626 2px; text-underline-offset: 3px}
#heat span {background: rgb(234 88 12 / calc(var(--heat) * 70%)); padding: 0 .25em;
  border-radius: 4px; line-height: 1.9; display: inline-block}
#heat img {display: inline; height: 2.5em; vertical-align: middle; margin: 0}
@media (max-width: 640px) {
  .try {flex-wrap: nowrap !important; overflow-x: auto}
  .try button {min-width: max-content !important}
}
"""
DOWNLOAD = """(content) => {
  const type = content.startsWith("data:") ? null : "application/json";
  const link = document.createElement("a");
  link.href = type ? URL.createObjectURL(new Blob([content], {type})) : content;
  link.download = "conversation." + (type ? "json" : "png");
  link.click();
}"""
LIGHT = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def build(page: Page) -> gr.Blocks:
    """The page of everyone who visits `page`."""
    profile = page.responder.profile
    with gr.Blocks(title="GILL", analytics_enabled=False, delete_cache=KEPT) as blocks:
        with gr.Column(elem_id="page"):
            gr.Markdown(ABOUT + (MINI if profile.name == "mini" else ""))
            with gr.Row(elem_classes="try"):
                examples = [gr.Button(title, size="sm", min_width=140) for title in EXAMPLES]
            with gr.Row():
                with gr.Column(scale=7, min_width=320):
                    shown, turns = _conversation(page)
                with gr.Column(scale=3, min_width=280):
                    controls = _controls(profile)
                    _files(page, shown)
        _bind(page, shown, turns, controls, examples)
        blocks.unload(page.leave)
    return blocks


def _conversation(page: Page):
    """The conversation, what is shown beside it, and the buttons under it."""
    note = gr.Markdown(elem_id="note")
    chat = gr.Chatbot(
        label="Conversation", elem_id="chat", height="48vh", buttons=[], latex_delimiters=[],
        placeholder="Nothing was said yet.",
    )  # fmt: skip
    box = gr.MultimodalTextbox(
        label="Message", show_label=True, elem_id="message", file_count="multiple",
        file_types=["image"], placeholder="Your message: write; attach, paste or drop pictures",
    )  # fmt: skip
    unknown = gr.HTML(elem_id="unknown", js_on_load=None)
    box.change(page.underline, box, unknown, trigger_mode="always_last", **LIGHT)
    with gr.Row():
        names = ("Undo", "Edit the last message", "Another seed", "New conversation")
        turns = [gr.Button(name, size="sm", min_width=100) for name in names]
    with gr.Accordion("Draw a picture of the mini world", open=False):
        with gr.Row():
            values = [
                gr.Radio(list(known), value=known[0], label=name.capitalize(), min_width=200)
                for name, known in ATTRIBUTES.items()
            ]
        into = gr.Button("Put it into the message", size="sm")
        into.click(page.draw, [box, *values], box, **LIGHT)
    with gr.Accordion("What the [IMG] tokens read", open=False):
        gr.Markdown(HEAT)
        read = gr.HTML(elem_id="heat", js_on_load=None)
    return [chat, box, read, note], turns


def _controls(profile) -> list:
    """The settings of an answer, in the order of `page.CONTROLS`; the official page's first."""
    guidance, steps = profile.guidance_scale, profile.num_inference_steps
    often = "Frequency multiplier for returning images"
    more = "higher means more frequent; up to 1 it changes nothing"
    random = "0 for deterministic, higher for more randomness"
    noise = "of the noise, and of random words"
    with gr.Accordion("Answers", open=True):
        return [
            gr.Slider(0, 3, 1.3, step=0.1, label=often, info=more),
            gr.Slider(1, 64, 32, step=1, label="Max # of words"),
            gr.Slider(0, 1, 0, step=0.1, label="Temperature", info=random),
            gr.Number(0, label="Seed", info=noise, precision=0, minimum=0, maximum=2**31),
            gr.Slider(1, 15, guidance, step=0.5, label="Guidance scale"),
            gr.Slider(1, 50, steps, step=1, label="Denoising steps"),
            gr.Slider(1, 4, 1, step=1, label="Candidates", info="drawn and retrieved"),
            gr.Checkbox(True, label="Draw", info="off: retrieve alone"),
            gr.Checkbox(True, label="Retrieve", info="off: draw alone"),
            gr.Checkbox(False, label="Rereads its own pictures", info="officially it does not"),
        ]


def _files(page: Page, shown: list) -> None:
    """Saving and loading, by the browser: the server keeps nothing."""
    with gr.Accordion("Save and load", open=True):
        for label, save in (("Save as JSON", page.save_json), ("Save as PNG", page.save_png)):
            saved = gr.Textbox(visible=False)
            button = gr.Button(label, size="sm")
            button.click(save, None, saved, **LIGHT).success(None, saved, None, js=DOWNLOAD)
        load = gr.UploadButton("Load a JSON", file_types=[".json"], size="sm")
        load.upload(page.load, load, shown, **waiting(shown))


def _bind(page: Page, shown: list, turns: list, controls: list, examples: list) -> None:
    """What asks the model or changes the conversation."""
    chat, box, *_ = shown
    undo, edit, again, reset = turns
    seed = controls[3]
    box.submit(page.send, [box, *controls], shown, **waiting(shown))
    again.click(page.again, controls, [*shown, seed], **waiting(shown))
    undo.click(page.undo, None, shown, **waiting(shown))
    edit.click(page.edit, None, shown, **waiting(shown))
    for event in (reset.click, chat.clear):
        event(page.reset, None, shown, **waiting(shown))
    for button in examples:
        button.click(page.example, [button, *controls], shown, **waiting(shown))


def waiting(shown: list) -> dict:
    """How an event waits for its turn: one at a time, its place in the queue over the chat."""
    return {
        "concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private",
        "show_progress": "minimal", "show_progress_on": shown[0],
    }  # fmt: skip
