"""The page of predicted images: texts are escaped, pictures are reached, and only the page's own script runs."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes

from thyroid_jax.runs import gallery

COLUMNS = {"file": "the file", "p": "a number", "nothing": "never known", "n": "a count"}


def shown(name, **row):
    return gallery.Shown(f"overlays/{name}.png", 30, 40, {"file": name, "p": 0.5, "nothing": None, "n": 3} | row)


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_every_picture_is_shown_lazily_with_its_size_and_row():
    text = gallery.page([shown("a"), shown("b", p=None, n=None)], COLUMNS, note="For research.").decode()
    tags = Tags(text)
    assert [image["src"] for image in tags.all("img")] == ["overlays/a.png", "overlays/b.png"]
    assert all(
        image["loading"] == "lazy" and (image["width"], image["height"]) == ("40", "30") for image in tags.all("img")
    )
    assert [cell.get("data-value") for cell in tags.all("td")] == [None, "a", "0.5", "3.0", None, "b", "", ""]
    assert [head.get("data-kind") for head in tags.all("th")] == [None, "text", "number", "number"]
    assert "For research." in text and "never known" not in text  # a column without any value is left out


def test_names_and_texts_are_data_and_never_markup():
    name = "a\"b<script>'&#\udcff é%.x"
    text = gallery.page(
        [shown(name, remarks='<img src=x onerror="1">')], COLUMNS | {"remarks": "<b>"}, note="<i>"
    ).decode()
    tags = Tags(text)
    assert len(tags.all("img")) == len(tags.all("script")) == 1 and not tags.all("b") and not tags.all("i")
    (image,) = tags.all("img")
    assert unquote_to_bytes(image["src"]) == b"overlays/" + name.encode("utf-8", "surrogateescape") + b".png"
    assert not re.search(r"https?:", text)


def test_the_policy_admits_the_pages_own_script_and_style_only():
    text = gallery.page([shown("a")], COLUMNS, note="").decode()
    (policy,) = [meta["content"] for meta in Tags(text).all("meta") if "http-equiv" in meta]
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src 'self' file:;")


def test_long_texts_are_cut_on_the_page():
    text = gallery.page([shown("a", file="x" * 1000)], COLUMNS, note="").decode()
    assert "x" * gallery.TEXT_LENGTH + "…" in text and "x" * (gallery.TEXT_LENGTH + 1) not in text
