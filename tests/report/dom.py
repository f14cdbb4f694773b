"""A page as its elements: enough of a DOM to ask for texts, ids and everything that would load something."""

import re
from html.parser import HTMLParser

LOADING = {"src", "href", "xlink:href", "data", "poster", "srcset", "action", "background"}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.figures: dict[str, str] = {}
        self.sections: dict[str, str] = {}
        self.tags: set[str] = set()
        self._open: list[tuple[str, str | None, str | None]] = []
        self.feed(text)
        self.loads += re.findall(r"url\(\s*['\"]?(?!#)([^)'\"]+)", text) + re.findall(r"@import\s+([^;]+)", text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        for name, value in attrs:
            if name in LOADING and value and not value.startswith(("#", "data:")):
                self.loads.append(value)
        if tag not in VOID:
            self._open.append((tag, found.get("id"), found.get("data-figure")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        for _, name, figure in self._open:
            if name and text:
                self.sections[name] = f"{self.sections.get(name, '')} {text}".strip()
            if figure and text:
                self.figures[figure] = f"{self.figures.get(figure, '')} {text}".strip()
