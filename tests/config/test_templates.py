"""The policy forbids inline code and other hosts; what breaks it would only be seen in a browser."""

import re

import pytest
from django.conf import settings

TEMPLATES = sorted((settings.BASE_DIR / "templates").rglob("*.html"))
STATIC = sorted(
    path for path in (settings.BASE_DIR / "static").rglob("*") if path.suffix in {".css", ".js", ".mjs", ".svg"}
)
TEMPLATE_COMMENT = re.compile(r"{#.*?#}|{% comment %}.*?{% endcomment %}", re.DOTALL)
INLINE = {
    "script": re.compile(r"<script(?![^>]*\bsrc=)", re.IGNORECASE),
    "style element": re.compile(r"<style", re.IGNORECASE),
    "style attribute": re.compile(r"\sstyle\s*=", re.IGNORECASE),
    "event handler": re.compile(r"""\son[a-z]+\s*=\s*["']""", re.IGNORECASE),
    "code address": re.compile(r"javascript:", re.IGNORECASE),
}
OTHER_HOST = re.compile(r"(?:https?:)?//(?!www\.w3\.org/)[a-z0-9-]+(?:\.[a-z0-9-]+)+", re.IGNORECASE)


def name(path):
    return str(path.relative_to(settings.BASE_DIR))


def test_there_are_templates_and_static_files_to_look_at():
    assert len(TEMPLATES) > 20
    assert len(STATIC) > 10


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_a_template_holds_nothing_inline(path):
    text = TEMPLATE_COMMENT.sub("", path.read_text(encoding="utf-8"))
    assert [kind for kind, pattern in INLINE.items() if pattern.search(text)] == []


@pytest.mark.parametrize("path", [*TEMPLATES, *STATIC], ids=name)
def test_a_file_names_no_other_host(path):
    assert OTHER_HOST.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("inline", ["<script>go()</script>", '<p style="top: 0">', '<a onclick="go()">', "<style>"])
def test_the_patterns_find_what_is_inline(inline):
    assert any(pattern.search(inline) for pattern in INLINE.values())


def test_the_pattern_finds_another_host():
    assert OTHER_HOST.search('src="//cdn.example.org/x.js"')
    assert OTHER_HOST.search("url(https://fonts.example.com/a.woff)")
    assert not OTHER_HOST.search('xmlns="http://www.w3.org/2000/svg"')
