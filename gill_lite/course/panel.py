"""A conversation with GILL inside a notebook: words, pictures from a file or drawn, and answers."""

import html
import io

import ipywidgets as widgets
from PIL import Image

from gill_lite.answering.conversation import Conversation
from gill_lite.datasets.images import decode_image
from gill_lite.errors import GillError
from gill_lite.world import render, scene

DID = {"gen": "made", "ret": "found"}
WHOLE = {"layout": {"width": "100%"}, "style": {"description_width": "initial"}}


class Panel:
    """Widgets around a responder; end a cell with `panel.widget`.

    Above stands everything that was said, below the line to write in: Enter sends it. A picture
    is chosen from a file, or drawn from six attributes, and goes along with the next line. Where
    GILL cannot answer, its sentence stands in the answer's place.
    """

    def __init__(self, responder, run_seed: int = 0):
        self.conversation = Conversation(responder, run_seed)
        self.shown: list[Image.Image] = []  # pictures that wait for the next line
        self.said = widgets.VBox()
        self.line = widgets.Text(placeholder="write here; Enter sends it", **WHOLE)
        self.factor = widgets.FloatSlider(1, min=1, max=3, step=0.05, description="factor", **WHOLE)
        self.heat = widgets.FloatSlider(0, min=0, max=2, description="temperature", **WHOLE)
        self.file = widgets.FileUpload(accept="image/*", description="picture from a file")
        self.file.observe(self.show_file, "value")
        self.choices = {
            name: widgets.Dropdown(options=values, description=name, **WHOLE)
            for name, values in scene.ATTRIBUTES.items()
        }
        self.buttons = {
            "say it": self.say,
            "draw a picture of this": self.show_drawn,
            "start anew": self.start_anew,
        }
        self.line.on_msg(self.entered)  # a changed value may also be a click elsewhere
        self.widget = widgets.VBox([self.said, self.line, *self.controls()])

    def controls(self) -> list[widgets.Widget]:
        """Rows below the line: buttons, knobs, and the attributes of a picture to draw."""
        made = [widgets.Button(description=name) for name in self.buttons]
        for button, action in zip(made, self.buttons.values()):
            button.on_click(action)
        for button in (*made, self.file):
            button.layout.width = "auto"  # as wide as its words
        say, drawn, anew = made
        columns = {"grid_template_columns": "repeat(3, 1fr)"}
        grid = widgets.GridBox([*self.choices.values()], layout=columns)
        return [widgets.HBox([say, self.file, anew]), self.factor, self.heat, grid, drawn]

    def add(self, who: str, item: str | Image.Image) -> None:
        """Put a text or picture under what was said."""
        if isinstance(item, str):
            told = widgets.HTML(f"<b>{who}:</b> {html.escape(item)}")  # a Label cuts long lines
            self.said.children = (*self.said.children, told)
            return
        content = io.BytesIO()
        item.resize((192, 192)).save(content, "PNG")
        picture = widgets.Image(value=content.getvalue(), format="png", width=192)
        self.said.children = (*self.said.children, widgets.HBox([widgets.Label(who), picture]))

    def entered(self, _, content: dict, buffers) -> None:
        """Send the line at Enter, the one message that the browser calls a submission."""
        if content.get("event") == "submit":
            self.say()

    def say(self, _=None) -> None:
        """Send the waiting pictures and the line; what GILL says and shows follows."""
        text, self.line.value = self.line.value.strip(), ""
        if text:
            self.add("you", text)
        items = [*self.shown, *([text] if text else [])]
        try:
            answer = self.conversation.say(
                *items, ret_scale_factor=self.factor.value, temperature=self.heat.value
            )
        except GillError as error:  # nothing was said, or too much
            self.add("not sent", str(error))
            return
        self.shown.clear()
        for item in answer or ["(nothing)"]:
            if isinstance(item, str):
                self.add("GILL", item)
                continue
            for kind, found in (("gen", item.generated), ("ret", item.retrieved)):
                if found:
                    chosen = ", and chose it" if kind == item.source else ""
                    self.add(f"GILL {DID[kind]}{chosen}", found[0].image)

    def show(self, picture: Image.Image) -> None:
        """Give a picture, to go along with the next line."""
        self.shown.append(picture)
        self.add("you", picture)

    def show_drawn(self, _=None) -> None:
        """Give the scene of the six attributes, drawn."""
        wanted = scene.Scene(**{name: choice.value for name, choice in self.choices.items()})
        self.show(render.render(wanted, scene.rng_for("panel", len(self.said.children))))

    def show_file(self, change) -> None:
        """Give the picture of a file that was chosen; one that is none is told."""
        for upload in change["new"]:
            try:
                self.show(decode_image(bytes(upload["content"]), upload["name"]))
            except GillError as error:
                self.add("not taken", str(error))

    def start_anew(self, _=None) -> None:
        """Forget what was said and shown."""
        self.conversation.turns.clear()
        self.shown.clear()
        self.said.children = ()
