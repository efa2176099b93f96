"""The page in a real browser; what it looks like is kept in runs/demo/."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

import pytest
import requests
from PIL import Image

from gill_lite.demo.examples import ALL, BALL, drawn
from gill_lite.demo.session import png
from tests.helpers.places import ROOT

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
expect.set_options(timeout=20_000)  # other tests run beside these
pytest.importorskip("gradio", reason="gradio is not installed")
CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("there is no Chromium (apt-get install chromium)", allow_module_level=True)
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
SHOTS = (ROOT if os.access(ROOT, os.W_OK) else Path(mkdtemp())) / "runs" / "demo"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
OFTEN = "Frequency multiplier for returning images"
BUSY = 2  # this machine may do other things, too
PROMPT = "a big red ball at the beach ."


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where `gill-lite demo` serves, whatever proxies the environment names."""
    dead = {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9", "no_proxy": ""}
    log = tmp_path_factory.mktemp("served") / "log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "gill_lite", "demo", "--port", "0"]
        server = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, **dead}
        )
        for _ in range(1800):
            if found := re.search(r"http://127.0.0.1:\d+", log.read_text()):
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[0]
        server.terminate()
        server.wait(10)
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def browser():
    SHOTS.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Visit:
    """A visitor at the page."""

    def __init__(self, browser, address, viewport=DESKTOP, **options):
        self.context = browser.new_context(viewport=viewport, **options)
        self.page = self.context.new_page()
        self.asked, self.faults = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.goto(address)
        self.box = self.page.locator("#message textarea")
        self.box.wait_for()

    def send(self, text=None, *files):
        """Send a message, and wait for its answer."""
        turn = self.answers.count()
        self.attach(*files)
        if text:
            self.box.fill(text)
        self.box.press("Enter")
        self.wait(turn + 1)

    def attach(self, *files):
        before = self.attached.count()
        self.page.locator("#message input[type=file]").set_input_files(files)
        expect(self.attached).to_have_count(before + len(files))

    def wait(self, answers: int):
        """Wait until so many answers are there, and the page takes a message again."""
        expect(self.answers).to_have_count(answers)
        expect(self.answers.last.get_by_text("…", exact=True)).to_have_count(0)
        expect(self.page.locator("#chat").get_by_test_id("status-tracker")).to_contain_class("hide")

    def click(self, name: str):
        self.page.get_by_role("button", name=name, exact=True).click()

    @property
    def answers(self):
        return self.page.locator("#chat [data-testid=bot]")

    @property
    def said(self):
        return self.page.locator("#chat [data-testid=user]")

    @property
    def attached(self):
        return self.page.get_by_label("File thumbnail")

    @property
    def picture(self):
        """The last picture that was shown."""
        return self.answers.locator("figure:not(details figure) > img").last

    def refused(self, sentence: str):
        """Wait for a sentence at the edge of the page, and put it away."""
        expect(self.page.get_by_test_id("toast-text").filter(has_text=sentence)).to_be_visible()
        self.page.get_by_test_id("toast-close").click()
        expect(self.page.get_by_test_id("toast-body")).to_have_count(0)

    def shot(self, name: str, **options):
        self.page.screenshot(path=SHOTS / f"{name}.png", **options)


@pytest.fixture
def visit(browser, address):
    visits = []

    def begin(**options) -> Visit:
        visits.append(Visit(browser, address, **options))
        return visits[-1]

    yield begin
    for one in visits:
        one.context.close()
        assert one.faults == []
        others = {u for u in one.asked if not u.startswith((address, "data:", "blob:"))}
        assert others == set(), "the page asks this server alone"


def picture_file(folder, name="ball.png", image=None):
    (folder / name).write_bytes(png(image or drawn(BALL)))
    return folder / name


def test_answers_come_soon(visit):
    start = time.monotonic()
    page = visit()
    page.send(PROMPT)
    first = time.monotonic()
    page.send("it turned blue .")
    again = time.monotonic()
    print(f"first answer {first - start:.1f} s after the page, the next {again - first:.1f} s")
    assert first - start < 10 and again - first < 3 * BUSY


@pytest.mark.parametrize("example", ALL, ids=lambda example: example.title)
def test_an_example_is_one_click(visit, example):
    page = visit()
    page.click(example.title)
    page.wait(len(example.messages))
    expect(page.page.locator("#note")).to_have_text(example.note)
    if example.title.startswith("Retrieved"):
        expect(page.picture).to_have_attribute("alt", re.compile("A retrieved picture: a "))
    page.shot(re.sub(r"\W+", "-", example.title.lower()))


def test_pictures_are_sent_and_described(visit, tmp_path):
    page = visit()
    page.send("look .", picture_file(tmp_path), picture_file(tmp_path, "again.png"))
    sent = page.said.locator("img")
    expect(sent).to_have_count(2)
    assert "a big red ball on the left at the beach by day" in sent.first.get_attribute("alt")
    assert sent.first.get_attribute("src").startswith("data:image/png;base64,")
    expect(page.attached).to_have_count(0)


PASTE = """(box, [kind, data]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], "ball.png", {type: "image/png"}));
  const how = {bubbles: true, cancelable: true, clipboardData: files, dataTransfer: files};
  box.dispatchEvent(kind == "paste" ? new ClipboardEvent(kind, how) : new DragEvent(kind, how));
}"""


def test_pictures_are_pasted_and_dropped(visit):
    page = visit()
    for number, kind in enumerate(("paste", "drop"), start=1):
        page.box.evaluate(PASTE, [kind, base64.b64encode(png(drawn(BALL))).decode()])
        expect(page.attached).to_have_count(number)


def test_a_picture_is_drawn_by_six_choices(visit):
    page = visit()
    page.click("Draw a picture of the mini world ▼")
    for value in ("star", "purple", "big", "right", "snow", "night"):
        page.page.get_by_role("radio", name=value, exact=True).check()
    page.click("Put it into the message")
    expect(page.attached).to_have_count(1)
    page.send("what is it ?")
    alt = page.said.locator("img").get_attribute("alt")
    assert "a big purple star on the right in the snow at night" in alt


def test_unknown_words_are_underlined_before_they_are_sent(visit):
    page = visit()
    page.box.fill("a red dragon <u>")
    expect(page.page.locator("#unknown u").first).to_have_text("dragon")
    page.box.fill("a red ball")
    expect(page.page.locator("#unknown u")).to_have_count(0)


def test_turns_are_taken_back_edited_varied_and_forgotten(visit, tmp_path):
    page = visit()
    page.send(PROMPT)
    page.send("it turned blue .", picture_file(tmp_path))
    page.click("Edit the last message")
    expect(page.answers).to_have_count(1)
    expect(page.box).to_have_value("it turned blue .")
    expect(page.attached).to_have_count(1)
    page.box.fill("it is night .")
    page.send()
    expect(page.said.last).to_contain_text("it is night .")
    page.click("Undo")
    expect(page.answers).to_have_count(1)
    page.click("Another seed")
    expect(page.page.get_by_label("Seed", exact=True)).to_have_value("1")
    page.click("New conversation")
    expect(page.answers).to_have_count(0)
    page.click("Undo")
    page.refused("there is no turn to take back")


def test_the_controls_change_the_answer(visit):
    page = visit()
    for label, value in (("Max # of words", "2"), ("Denoising steps", "2"), ("Candidates", "3")):
        page.page.get_by_label(f"number input for {label}").fill(value)
    page.page.get_by_label(f"number input for {OFTEN}").fill("3")
    page.send(PROMPT)
    words = page.answers.locator("p").all_inner_texts()
    assert len(" ".join(words).split()) <= 2
    expect(page.answers.locator("figure")).to_have_count(6)  # drawn and retrieved, three each
    page.page.get_by_label("Draw", exact=True).uncheck()
    page.click("Another seed")
    expect(page.picture).to_have_attribute("alt", re.compile("A retrieved picture: a "))


def test_the_other_picture_and_what_was_read_are_at_hand(visit):
    page = visit()
    page.send(PROMPT)
    other = page.answers.locator("details figure").first
    expect(other).to_be_hidden()
    page.page.get_by_text("what it would have").first.click()
    expect(other).to_be_visible()
    page.click("What the [IMG] tokens read ▼")
    read = page.page.locator("#heat span")
    assert "ball" in read.all_inner_texts()
    assert any(float(s) == 1 for s in re.findall(r"--heat: ?([\d.]+)", str(styles(read))))


def styles(spans) -> list[str]:
    return [span.get_attribute("style") for span in spans.all()]


def test_a_conversation_is_saved_and_loaded(visit, tmp_path):
    page = visit()
    page.send(PROMPT)
    for name, suffix in (("Save as JSON", "json"), ("Save as PNG", "png")):
        with page.page.expect_download() as download:
            page.click(name)
        assert download.value.suggested_filename == f"conversation.{suffix}"
        download.value.save_as(tmp_path / f"saved.{suffix}")
    assert (
        json.loads((tmp_path / "saved.json").read_text())["turns"][0]["said"][0]["text"] == PROMPT
    )
    assert Image.open(tmp_path / "saved.png").width == 640
    shutil.copy(tmp_path / "saved.png", SHOTS / "saved.png")
    other = visit()
    load = other.page.locator("input[type=file][accept='.json']")
    load.set_input_files(tmp_path / "saved.json")
    other.wait(1)
    expect(other.picture).to_have_attribute("alt", page.picture.get_attribute("alt"))
    other.send("it turned blue .")
    (tmp_path / "no.json").write_text('{"turns": 3}')
    load.set_input_files(tmp_path / "no.json")
    other.refused("this file is no conversation that was saved on this page")


def test_sessions_side_by_side_know_nothing_of_each_other(visit):
    one, two = visit(), visit()
    for page, words in ((one, "a red ball ."), (two, "a blue star .")):
        page.box.fill(words)
    for page in (one, two):
        page.box.press("Enter")
    for page in (one, two):
        page.wait(1)
    assert "ball" in one.said.inner_text() and "star" not in one.said.inner_text()
    two.click("New conversation")
    expect(two.answers).to_have_count(0)
    expect(one.answers).to_have_count(1)


HOSTILE = "<!doctype html><script>alert(1)</script>"


def test_hostile_uploads_are_one_sentence(visit, tmp_path):
    page = visit()
    (tmp_path / "page.png").write_text(HOSTILE)
    picture_file(tmp_path, "huge.png", Image.new("1", (8000, 5000)))
    whole = picture_file(tmp_path).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name, sentence in (
        ("page.png", "the picture page.png is a web page, not a picture"),
        ("huge.png", "the picture huge.png is too large to open safely: 8000x5000 pixels"),
        ("cut.png", "the picture cut.png is damaged or cut off"),
    ):
        page.attach(tmp_path / name)
        page.box.fill(PROMPT)
        page.box.press("Enter")
        page.refused(sentence)
        expect(page.box).to_have_value(PROMPT)
        page.page.get_by_label("Remove file").click()
        expect(page.attached).to_have_count(0)
    (tmp_path / "large.png").write_bytes(whole + bytes(11 * 2**20))
    page.page.locator("#message input[type=file]").set_input_files(tmp_path / "large.png")
    page.refused("maximum allowed size")
    page.send()
    page.box.fill("a " * 301)
    page.box.press("Enter")
    page.refused("the message has 601 letters; at most 600")
    page.box.fill("<img src=x onerror=alert(1)> .")
    page.box.press("Enter")
    page.wait(2)
    expect(page.said.last.locator("img")).to_have_count(0)


def test_nothing_of_the_server_can_be_read(address, tmp_path):
    files = f"{address}/gradio_api/file="
    ours = (str(ROOT / "pyproject.toml"), "gill_lite/demo/page.py", "..%2f..%2fetc%2fpasswd")
    for path in (*ours, "/etc/passwd", "//etc/passwd", "http://127.0.0.1:1/", "https://x.org/"):
        answer = requests.get(files + path, timeout=10)
        assert answer.status_code == 403, path
    upload = {"files": ("page.html", HOSTILE, "text/html")}
    [path] = requests.post(f"{address}/gradio_api/upload", files=upload, timeout=10).json()
    answer = requests.get(files + path, timeout=10)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    large = {"files": ("large.png", b"\0" * (11 * 2**20), "image/png")}
    assert requests.post(f"{address}/gradio_api/upload", files=large, timeout=10).status_code == 413


def test_a_cut_connection_harms_nobody(visit):
    page, other = visit(), visit()
    page.send(PROMPT)
    page.box.fill("it turned blue .")
    page.box.press("Enter")
    expect(page.answers).to_have_count(2)
    page.context.set_offline(True)
    other.send("a small star .")
    page.context.set_offline(False)
    page.click("Undo")
    expect(page.answers).to_have_count(1)
    gone = visit()
    gone.box.fill(PROMPT)
    gone.box.press("Enter")
    gone.page.close()
    other.send("it is night .")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_its_window(visit, size, scheme):
    page = visit(viewport=size, color_scheme=scheme, is_mobile=size == PHONE)
    name = f"{'phone' if size == PHONE else 'desktop'}-{scheme}"
    page.shot(f"{name}-empty")
    page.send(PROMPT)
    page.box.fill("a dragon .")
    expect(page.page.locator("#unknown u")).to_have_count(1)
    page.shot(name)
    page.click("Draw a picture of the mini world ▼")
    page.click("What the [IMG] tokens read ▼")
    page.shot(f"{name}-open", full_page=True)
    wide = page.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "nothing to scroll sideways"


def test_the_keyboard_alone_will_do(visit):
    page = visit()
    reached = []
    for _ in range(60):
        page.page.keyboard.press("Tab")
        reached.append(page.page.evaluate(FOCUSED))
    places = [reached.index(name) for name in ("A dialogue", "textarea", "Undo", "Save as JSON")]
    assert places == sorted(places)
    names = page.page.locator("button:visible, input:visible, textarea:visible").all()
    unnamed = [one.evaluate("e => e.outerHTML") for one in names if not one.evaluate(NAMED)]
    assert unnamed == []


FOCUSED = """(() => { const e = document.activeElement;
  return e.tagName == "TEXTAREA" ? "textarea" : e.innerText })()"""
NAMED = """e => e.innerText || e.ariaLabel || e.placeholder || e.labels?.length"""


@pytest.mark.full
def test_a_class_of_eight_at_once(visit):
    class_ = [visit() for _ in range(8)]
    for turn, words in enumerate((PROMPT, "it turned blue .", "it went to the snow ."), start=1):
        start, took = time.monotonic(), []
        for page in class_:
            page.box.fill(words)
        for page in class_:
            page.box.press("Enter")
        class_[-1].page.wait_for_timeout(300)
        class_[-1].shot(f"class-{turn}")
        for page in class_:
            page.wait(turn)
            took.append(time.monotonic() - start)
        print(f"turn {turn}: the slowest of eight answers after {max(took):.1f} s")
