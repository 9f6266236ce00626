"""The guides as one set of pages: every link resolves, broken ones are named, and the real build works from disk."""

import importlib
import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.chromium import chromium

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def guides(monkeypatch):
    """The module that gathers guides, with its folder on sys.path as when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "lib"))
    return importlib.import_module("guides")


@pytest.fixture
def repository(tmp_path):
    """Writes a small repository: each keyword argument is the text of README.md, part/README.md or NOTES.md."""

    def write(top="# Top\n", part="# Part\n", notes="# Notes\n", url=""):
        files = {
            "README.md": top,
            "part/README.md": part,
            "NOTES.md": notes,
            "part/code.py": "x = 1\n",
            "part/picture.png": "pixels",
            "pyproject.toml": f'[project]\nname = "x"\n[project.urls]\nRepository = "{url}"\n'
            if url
            else '[project]\nname = "x"\n',
        }
        for name, text in files.items():
            path = tmp_path / "repository" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "repository"

    return write


SMALL = {"Top": "README.md", "Part": "part/README.md", "Notes": "NOTES.md"}


def test_every_link_of_every_guide_resolves(guides):
    assert guides.problems() == []


def test_no_link_of_a_guide_is_overlooked(guides):
    for guide in guides.GUIDES.values():
        text = re.sub(r"^```.*?^```", "", (ROOT / guide).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        elsewhere = len(re.findall(r"\]\(https?:", text))
        assert len(list(guides.links(text))) + elsewhere == text.count("]("), guide


def test_every_readme_is_a_guide(guides):
    folders = ("scripts", "eval", "benchmarks", "rlfr_vlm", "tests")
    readmes = [*ROOT.glob("*.md"), *(path for folder in folders for path in (ROOT / folder).rglob("README.md"))]
    assert {path.relative_to(ROOT).as_posix() for path in readmes} <= set(guides.GUIDES.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n\n[x](part/gone.md)\n", "README.md:3: there is no part/gone.md"),
        ("[x](NOTES.md#notes)\n[y](NOTES.md#nodes)", "README.md:2: NOTES.md has no heading for #nodes"),
        ("# Top\n[x](#top) and\n[y](#to)", "README.md:3: README.md has no heading for #to"),
        ("![x](part/no.png)", "README.md:1: there is no part/no.png"),
        ("[a\nb](gone.md)", "README.md:1: there is no gone.md"),
        ("[x](../other/file.py)", "README.md:1: ../other/file.py lies outside the repository"),
        ("[x](/part/code.py)", "README.md:1: /part/code.py lies outside the repository"),
        ('a\n<img src="x">', "README.md:2: links that begin with <img are not checked; write [text](target)"),
        ("a\n\n[b]: NOTES.md", "README.md:3: links that begin with [b]: are not checked; write [text](target)"),
        ("~~~\n# Top\n~~~\n[x](#top)", "README.md:4: README.md has no heading for #top"),
    ],
)
def test_a_broken_link_is_named_with_file_and_line(guides, repository, text, message):
    assert guides.problems(repository(top=text), SMALL) == [message]


def test_what_is_code_or_leads_elsewhere_is_no_link(guides, repository):
    text = "`[x](gone.md)` [y](https://host/gone.md)\n```\n[x](gone.md)\n```\n<!-- [x](gone.md) -->\n"
    assert guides.problems(repository(top=f"{text}``a ` [x](gone.md)``\n"), SMALL) == []


def test_anchors_are_githubs(guides):
    text = "# (a) The `digits`, *policy*\n## A -- b_c\n# Über [uns](x.md)?\n## A -- b_c ##\n"
    assert guides.anchors(f"{text}```\n# code\n```\n#no heading\n") == {
        "a-the-digits-policy",
        "a----b_c",
        "a----b_c-1",
        "über-uns",
    }


def test_links_between_guides_stay_and_others_become_code(guides, repository):
    root = repository(
        part="[top](../README.md#top) [self](#part) [folder](..) [`code.py`](code.py) [this](../part/code.py) "
        "`[code.py](code.py)` ![drawn](picture.png)\n"
    )
    assert guides.page(root, "part/README.md", SMALL) == (
        "[top](../README.md#top) [self](#part) [folder](../README.md) `part/code.py` this (`part/code.py`) "
        "`[code.py](code.py)` ![drawn](picture.png)\n"
    )


def test_links_to_sources_lead_to_the_repositorys_page(guides, repository, tmp_path):
    root = repository(part="[a](code.py#L1) [b](../NOTES.md)\n", url="https://host/owner/name/")
    guides.gather(tmp_path / "build", root, SMALL)
    page = (tmp_path / "build/pages/part/README.md").read_text()
    assert page == "[a](https://host/owner/name/blob/HEAD/part/code.py#L1) [b](../NOTES.md)\n"


def test_pipes_in_code_in_tables_are_plain(guides, repository):
    elsewhere = "\n`<\\|x`\n```\n| `\\|` |\n```\n"
    root = repository(top="| a | `<\\|x\\|>` | \\| |\n" + elsewhere)
    assert guides.page(root, "README.md", SMALL) == "| a | `<|x|>` | \\| |\n" + elsewhere


def test_the_build_folder_has_guides_pictures_and_settings(guides, repository, tmp_path):
    root = repository(top="![p](part/picture.png)\n", part="![p](picture.png) [c](code.py)\n")
    build = tmp_path / "build"
    guides.gather(build, root, SMALL)
    files = {path.relative_to(build).as_posix() for path in build.rglob("*") if path.is_file()}
    pages = {"pages/README.md", "pages/NOTES.md", "pages/part/README.md", "pages/part/picture.png"}
    assert files == pages | {"pages/assets/iframe-worker.js", "mkdocs.yml"}
    settings = json.loads((build / "mkdocs.yml").read_text())
    assert settings["nav"] == [{"Top": "README.md"}, {"Part": "part/README.md"}, {"Notes": "NOTES.md"}]
    assert Path(settings["INHERIT"]) == ROOT / "scripts/lib/mkdocs.yml"


def build_docs(*arguments, cwd=ROOT):
    """Run the script; pip finds nothing on the network."""
    command = ["bash", str(ROOT / "scripts/build_docs.sh"), *map(str, arguments)]
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    done = build_docs("--to", "thesis", cwd=tmp_path)
    assert done.returncode == 2 and (tmp_path / "thesis/chapter.txt").exists()
    assert done.stderr == (
        f"build_docs: {tmp_path}/thesis holds something else than pages of an earlier build; "
        "name another folder with --to\n"
    )
    done = build_docs("--nope")
    assert (done.returncode, done.stderr) == (
        2,
        "build_docs: unknown option --nope; see the head of scripts/build_docs.sh\n",
    )


class Page(HTMLParser):
    """Identifiers of a page, and what it links to and loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids |= {values["id"]} if "id" in values else set()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        self.loads += [values["src"]] if "src" in values else []
        self.loads += [values["href"]] if tag == "link" and "href" in values else []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The real pages."""
    if not (ROOT / ".venv-docs/bin/mkdocs").exists():
        pytest.skip("mkdocs is not installed; `bash scripts/setup.sh --extras docs` would install it")
    folder = tmp_path_factory.mktemp("docs") / "site"
    for _ in range(2):  # the second build replaces the pages of the first
        done = build_docs("--to", folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"build_docs: open {folder}/index.html"
        (folder / "left.html").write_text("a page that is no more")
    return folder


@pytest.mark.slow
def test_the_pages_link_and_load_only_what_is_there(guides, site):
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name not in ("404.html", "left.html")}
    assert len(pages) == len(guides.GUIDES)
    assert (site / "scripts/screenshots/charts.png").read_bytes() == (
        ROOT / "scripts/screenshots/charts.png"
    ).read_bytes()
    for path, page in pages.items():
        for address in page.loads:
            assert (path.parent / address.split("?")[0]).is_file(), f"{path} loads {address}"
        for address in page.links:
            if not re.match("https?:", address):
                name, _, anchor = address.partition("#")
                linked = (path.parent / name).resolve() if name else path
                assert linked.is_file(), f"{path} links {address}"
                assert not anchor or linked not in pages or anchor in pages[linked].ids, f"{path} links {address}"


@pytest.mark.slow
def test_tables_and_trees_become_what_they_are(site):
    training = (site / "scripts/index.html").read_text()
    assert "<code>&lt;|im_end|&gt;</code>" in training
    for path in site.rglob("index.html"):
        body = re.sub(r"<(pre|code)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
        assert "|---" not in body and "```" not in body, path  # a table or a fence that was not read


@pytest.mark.slow
def test_search_works_from_disk_and_nothing_asks_the_network(site):
    with chromium() as browser:
        page = browser.browser.new_page()
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"file://{site}/index.html")
        page.click("input[name=query]")  # the index is read at the first click
        ready = page.locator(".md-search-result__meta", has_text="Type to start searching")
        ready.wait_for(state="attached")
        page.locator("input[name=query]").press_sequentially("reasoning-gym")  # the theme listens to keys
        page.wait_for_selector(".md-search-result__link")
        links = page.locator(".md-search-result__link").evaluate_all("e => e.map(a => a.href)")
        page.click(".md-search-result__link")
        page.wait_for_load_state()
        assert any("scripts/index.html" in link for link in links) and errors == []
        assert requests and all(url.startswith(("file:", "data:", "blob:")) for url in requests), requests


@pytest.mark.slow
def test_a_link_that_only_mkdocs_finds_broken_fails_the_build(guides, site, repository, tmp_path):
    root = repository(top="[x][1]\n\n[1]: part/gone.md\n")
    guides.gather(tmp_path / "build", root, SMALL)
    command = [ROOT / ".venv-docs/bin/mkdocs", "build", "--strict", "--config-file", tmp_path / "build/mkdocs.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "part/gone.md" in done.stderr
