"""Thumbnails: lossless if small, written once, limited in total size, no error for unreadable images."""

import base64
import io

import numpy as np
from PIL import Image

from rlfr_vlm.page.thumbnails import PageImages, encode_thumbnail, save_thumbnail


def noise(side, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def test_small_images_keep_every_pixel_and_large_ones_shrink():
    content, kind = encode_thumbnail(noise(28))
    assert kind == "png" and np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(noise(28)))
    content, kind = encode_thumbnail(noise(900), side=200)
    assert kind == "jpeg" and Image.open(io.BytesIO(content)).size == (200, 200)
    content, kind = encode_thumbnail(Image.new("RGBA", (1000, 500), (0, 0, 0, 0)))
    assert kind == "png" and Image.open(io.BytesIO(content)).size == (320, 160)


def test_the_same_picture_is_written_once(tmp_path):
    first = save_thumbnail(tmp_path, noise(28))
    assert save_thumbnail(tmp_path, noise(28)) == first
    assert save_thumbnail(tmp_path, noise(28, seed=1)) != first and len(list(tmp_path.iterdir())) == 2


def test_a_page_holds_each_image_once_and_no_more_than_its_size(tmp_path):
    noise(28).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")
    size = len(encode_thumbnail(noise(28))[0])
    images = PageImages(limit=2 * size)
    assert images.add("a", tmp_path / "a.png") == 0 == images.add("a", tmp_path / "a.png")
    assert images.add("broken", tmp_path / "broken.png") is None is images.add("gone", tmp_path / "gone.png")
    assert images.add("b", noise(28, seed=1)) == 1
    assert images.add("c", noise(28, seed=2)) is None  # full
    assert len(images.uris) == 2 and images.uris[0].startswith("data:image/png;base64,")
    assert base64.b64decode(images.uris[0].split(",")[1]).startswith(b"\x89PNG")
