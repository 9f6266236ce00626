"""Data files that are not what they should be: each is refused when it is opened, in words that name file and row."""

import base64
import io

import pytest
from PIL import Image

from rlfr_vlm.errors import UserError
from tests.eval.vlm.sets import draw

PICTURE = base64.b64encode(draw(3)).decode()
FAKE = base64.b64encode(b"\x89PNG" + bytes(60)).decode()
OPEN = "index\tquestion\tanswer\timage\n"
CHOICE = "index\tquestion\tanswer\tA\tB\tC\timage\n"


@pytest.fixture
def opened(running, tmp_path):
    """Opens a file with this content; returns its rows."""

    def open_it(content, name="mine", columns=()):
        path = tmp_path / f"{name}.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [
            reply["row"] for reply in running.open(name, path, tmp_path / "images", list(columns)) if "row" in reply
        ]

    return open_it


def png(width, height):
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("gold", ["dog", "b", "(B)", "D"])
def test_an_answer_that_is_no_letter_of_its_options(opened, gold):
    """Compared with a letter it would be wrong whatever the model says."""
    with pytest.raises(
        UserError,
        match=rf"Row 1 of .*mine.tsv: its answer is '{gold}'.*options are A, B, C".replace("(", r"\(").replace(
            ")", r"\)"
        ),
    ):
        opened(f"{CHOICE}0\t?\tB\tcat\tdog\tcow\t{PICTURE}\n1\t?\t{gold}\tcat\tdog\tcow\t{PICTURE}\n")


def test_cells_of_ones_own_stand_as_they_are(opened):
    """pandas takes `None` for an empty cell and makes 1.2345678901234567e+19 of twenty digits and 7.0 of 007."""
    (row,) = opened(f"{CHOICE}0\t?\tC\tcat\tNA\tNone\t{PICTURE}\n")
    assert row["options"] == {"A": "cat", "B": "NA", "C": "None"}
    rows = opened(
        OPEN
        + "".join(f"{i}\t?\t{gold}\t{PICTURE}\n" for i, gold in enumerate(["007", "12345678901234567890", "1.50"]))
    )
    assert [row["answer"] for row in rows] == ["007", "12345678901234567890", "1.50"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no table of tab-separated UTF-8 text: No columns"),
        (f"{OPEN}0\t?\t7\t{PICTURE}\n1\t?\tx\t7\t{PICTURE}\textra\n", "is no table of tab-separated UTF-8 text"),
        (f"{OPEN}0\t?\t7\t{PICTURE}\n".encode("utf-16"), "is no table of tab-separated UTF-8 text"),
        (f"{OPEN}0\t\"Which\t7\t{PICTURE}\n1\tWhat?\t8\t{PICTURE}\n2\tlast\" one\t9\t{PICTURE}\n", "holds a tab"),
        (f"{OPEN}0\t?\t7\tAAAA\n", "at most 64 characters is the index of the row"),
        (f"{OPEN}0\t?\t7\t\n1\t?\t7\t\n", "has no row with an image"),
        (f"{OPEN}0\t?\t7\t{PICTURE}\n\t?\t7\t{PICTURE}\n", "has a row without an index"),
        (f"{OPEN}0\t?\t7\t{base64.b64encode(draw(3)[:120]).decode()}\n", "Row 0 of .* cannot be read"),
        (f"{OPEN}0\t?\t7\t{FAKE}\n", "Row 0 of .* cannot be read"),
        (f"{OPEN}0\t?\t7\t{png(20000, 20000)}\n", "has 20000 x 20000 pixels"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_says_why(opened, content, message):
    with pytest.raises(UserError, match=message) as caught:
        opened(content)
    assert "mine.tsv" in str(caught.value)


def test_an_image_file_that_is_none(opened, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"Row 0 of .*mine.tsv: its image a.png cannot be read"):
        opened(f"index\tquestion\tanswer\timage_path\n0\t?\t7\t{tmp_path}/a.png\n")


def test_a_hint_is_part_of_the_question_where_vlmevalkit_shows_it(opened):
    """The presets paper and training ask the question, not VLMEvalKit's prompt."""
    (row,) = opened(f"index\thint\tquestion\tanswer\tA\tB\timage\n0\tCount.\tWhat?\tB\tcat\tdog\t{PICTURE}\n")
    assert row["question"] == "Hint: Count.\nWhat?"
    (row,) = opened(f"index\thint\tquestion\tanswer\timage\n0\tCount.\tWhat?\t7\t{PICTURE}\n")
    assert row["question"] == "What?"  # VLMEvalKit's prompt of an open question has no hint


def test_an_open_answer_that_is_part_of_the_alphabet(opened, running):
    """`NO` is no option's letter: VLMEvalKit makes two options of it, and the first is right."""
    header = "index\tquestion\tanswer\tA\tB\tC\tD\tcategory\tl2-category\tsplit\timage\n"
    opened(f"{header}0\t?\tNO\t\t\t\t\tx\ty\tvalidation\t{PICTURE}\n", "MMMU_DEV_VAL")
    items = [{"id": "0", "prediction": said, "given": {}, "compare": "vlmeval"} for said in ("NO", "A", "B")]
    verdicts = [one["verdict"] for one in running.score("MMMU_DEV_VAL", items)]
    assert verdicts == ["right", "right", "wrong"]


def test_an_image_that_ends_within_its_pixels_is_a_message(tmp_path):
    from rlfr_eval.model.request_images import data_url

    path = tmp_path / "cut.jpg"
    path.write_bytes(draw(5, "JPEG")[:-500])
    with pytest.raises(UserError, match="cannot be made a JPEG: image file is truncated"):
        data_url(path, jpeg=True)
