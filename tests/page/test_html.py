"""Rendered pages: scripts allowed by hash, data that round-trips, escaped text."""

import base64
import hashlib
import re

import pytest

from rlfr_vlm.page.html import STATIC, TEMPLATES, compressed, render
from tests.page_data import decompressed

HOSTILE = "</script><script>alert(1)</script>{{7*7}}<img src=x onerror=alert(2)>"


def test_data_round_trip():
    data = {"text": f"ünï\u202e {HOSTILE}", "numbers": [1.5, None]}
    assert decompressed(compressed(data)) == data
    assert compressed(data) == compressed(data)
    assert decompressed(compressed("a\ud83d")) == "a?"  # a lone surrogate has no UTF-8
    with pytest.raises(ValueError):
        compressed(float("nan"))


def test_the_policy_names_exactly_what_the_page_holds(tmp_path):
    (tmp_path / "message.html").write_text(
        "{% extends 'page.html' %}{% block content %}<p>{{ message }}</p>{% endblock %}"
    )
    page = render(
        "message.html",
        {"x": HOSTILE},
        scripts=["page.js"],
        folders=[tmp_path],
        title=HOSTILE,
        message=HOSTILE,
        sections=[],
        made="now",
    )
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(scripts) == 1
    for source in [*scripts, style]:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'" in policy
    for directive in ("default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"):
        assert directive in policy
    assert "unsafe" not in policy and "http" not in policy and "connect-src" not in policy
    assert HOSTILE not in page and "&lt;/script&gt;" in page and "49" not in re.search(r"<p>(.*?)</p>", page)[1]


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.*s")), ids=lambda path: path.name)
def test_files_do_not_end_their_own_element(path):
    text = path.read_text()
    assert "</script" not in text and "</style" not in text
    # the scripts of this package never write markup or evaluate text
    if path.name != "uPlot.iife.min.js":
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.name)
def test_templates_need_nothing_that_the_policy_forbids(path):
    text = path.read_text()
    assert not re.search(r"\son\w+=|\sstyle=|https?://|\|\s*safe", text)
