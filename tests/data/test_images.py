"""Opening images: accepted kinds and their conversion, rejected images and the reasons."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from rlfr_vlm.data.images import ImageRules, image_size, open_image
from rlfr_vlm.data.rows import BadRow


def encoded(image: Image.Image, kind: str = "PNG", **settings) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


RED = Image.new("RGB", (40, 30), "red")


@pytest.fixture
def rules(tmp_path):
    (tmp_path / "media").mkdir()
    RED.save(tmp_path / "media" / "a.png")
    RED.save(tmp_path / "outside.png")
    return ImageRules(tmp_path / "media")


def test_every_kind_of_image_value(rules):
    png = encoded(RED)
    text = base64.b64encode(png + b"\x00" * 200).decode()
    for value in (
        "a.png", "file://a.png", str(rules.media_root / "a.png"), rules.media_root / "a.png", png, RED, text,
        {"bytes": png, "path": None}, {"bytes": None, "path": "a.png"},
        base64.encodebytes(png + b"\x00" * 200).decode(), f"data:image/png;base64,{base64.b64encode(png).decode()}",
    ):  # fmt: skip
        assert open_image(value, rules).getpixel((0, 0)) == (255, 0, 0)
        assert image_size(value, rules) == (40, 30)


def test_modes_become_rgb():
    transparent = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    half = Image.new("RGBA", (10, 10), (0, 0, 0, 128))
    palette = Image.new("P", (10, 10))
    palette.info["transparency"] = 0
    assert open_image(encoded(transparent)).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encoded(half)).getpixel((0, 0)) == (127, 127, 127)
    assert open_image(encoded(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    cmyk = open_image(encoded(Image.new("CMYK", (10, 10), (0, 255, 255, 0)), "TIFF"))
    assert cmyk.mode == "RGB" and cmyk.getpixel((0, 0)) == (255, 0, 0)
    assert open_image(encoded(Image.new("1", (10, 10), 1))).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped():
    """65535 is white and half of it is grey 128. PIL's conversion would clip both to 255."""
    deep = Image.fromarray(np.array([[65535, 32896, 0]] * 4, dtype=np.uint16))
    image = open_image(encoded(deep))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [255, 128, 0]


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    image = encoded(Image.new("RGB", (40, 30)), "JPEG", exif=exif)
    assert open_image(image).size == image_size(image, ImageRules()) == (30, 40)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (10, 10), colour) for colour in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(gif).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        ("gone.png", "image missing", "'gone.png' does not exist"),
        ("../outside.png", "image outside", "leads outside"),
        ("https://example.org/a.png", "image is a URL", "download the images"),
        (b"not an image", "image unreadable", "<bytes>"),
        (encoded(RED)[:60], "image unreadable", "<bytes>"),
        ("data:image/png;base64,####", "image unreadable", "base64"),
        ("A" * 400, "image unreadable", "<str>"),
        ("a/" * 150 + "b.png", "image missing", "does not exist"),
        ("a\x00.png", "image missing", "null"),
        ("/etc/hostname", "image outside", "set media_root"),
        ({"bytes": b"junk", "path": "\x1b[31m"}, "image unreadable", "\\x1b[31m"),
        (Image.new("1", (9000, 9000)), "image too large", "above image_pixel_ceiling"),
        ({"bytes": None, "path": None}, "image unreadable", "neither bytes nor a path"),
        (7, "image unreadable", "int"),
        (Image.new("RGB", (3000, 10)), "image ratio", "3000 x 10"),
        (Image.new("RGB", (1, 10)), "image too small", "1 x 10"),
    ],
)
def test_rejected_images(rules, value, reason, detail):
    with pytest.raises(BadRow) as caught:
        open_image(value, rules)
    assert caught.value.reason == reason and detail in caught.value.detail


def test_a_link_out_of_the_folder_is_rejected(rules):
    (rules.media_root / "link.png").symlink_to(rules.media_root.parent / "outside.png")
    with pytest.raises(BadRow, match="leads outside"):
        open_image("link.png", rules)


def test_a_decompression_bomb_is_rejected(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadRow, match="image unreadable"):
        open_image(encoded(Image.new("RGB", (50, 50))))


def test_limits_of_the_side_and_of_the_ratio():
    rules = ImageRules(min_side=20, max_ratio=2)
    with pytest.raises(BadRow, match="below 20 pixels a side"):
        open_image(encoded(Image.new("RGB", (19, 30))), rules)
    with pytest.raises(BadRow, match="above the ratio 2"):
        open_image(encoded(Image.new("RGB", (61, 30))), rules)


def rows_with_limits(tmp_path, **limits):
    """One row whose image of 120x80 pixels stands in a block with limits, for Qwen2.5-VL's processor."""
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.options import DataOptions
    from tests.models.small_families import VISION, build_processor

    Image.new("RGB", (120, 80)).save(tmp_path / "a.png")
    blocks = [{"type": "image", "image": "a.png", **limits}, {"type": "text", "text": "q"}]
    row = {"prompt": [{"role": "user", "content": blocks}], "answer": "7"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    rows = read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl")), ("prompt", "answer"))
    processor = build_processor(VISION["Qwen2.5-VL"])
    rows.suit(processor)
    return rows, processor


@pytest.mark.parametrize(
    ("limits", "size"),
    [
        ({}, (120, 80)),
        ({"max_pixels": 2000}, (28, 28)),  # below qwen-vl-utils' own smallest image
        ({"max_pixels": 4 * 28 * 28}, (56, 28)),  # qwen-vl-utils rounds down both sides of a smaller image
        ({"min_pixels": 16 * 28 * 28}, (140, 112)),
        ({"resized_height": 56, "resized_width": 84}, (84, 56)),
    ],
)
def test_limits_of_one_image_are_those_of_qwen_vl_utils(tmp_path, limits, size):
    """The image that is loaded, the size that is counted before training, and the tokens of the processor."""
    from rlfr_vlm.data.encode import encode_prompts
    from rlfr_vlm.data.lengths import TokenCounter, sized_row

    rows, processor = rows_with_limits(tmp_path, **limits)
    loaded = rows.load(0)
    assert loaded["images"][0].size == size and "image_limits" not in loaded
    counter = TokenCounter(processor)
    row, _, sizes = sized_row(rows, counter, 0)
    assert sizes == [size]
    tokens = int(encode_prompts(processor, [loaded]).attention_mask.sum())
    assert counter.prompt_tokens([row], [sizes]) == [tokens]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_pixels": "many"}, "max_pixels of an image block is 'many'"),
        ({"min_pixels": -1}, "min_pixels of an image block is -1"),
        ({"max_pixels": True}, "max_pixels of an image block is true"),
        ({"resized_height": 56}, "give both"),
        ({"max_pixels": float("inf")}, "max_pixels of an image block is inf"),
        ({"max_pixels": 100}, "an image of 120 x 80 would have no pixels left"),
        ({"min_pixels": 10**6, "max_pixels": 10**4}, "greater than or equal"),
    ],
)
def test_limits_that_cannot_be_kept(tmp_path, limits, words):
    rows, _ = rows_with_limits(tmp_path, **limits)
    with pytest.raises(BadRow, match=words) as error:
        rows.load(0)
    assert error.value.reason == "image limits"
