"""Videos as frames: lists of images and files; thinning, sizes, times; and every way in which they are broken."""

import base64
import io
import json

import pytest
from PIL import Image

from rlfr_vlm.data import videos
from rlfr_vlm.data.images import ImageRules
from rlfr_vlm.data.load import load_rows, read_rows
from rlfr_vlm.data.rows import BadRow
from rlfr_vlm.data.videos import Video, VideoRules, open_video, pictures_of, strip_of
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions


def png(grey: int, size=(28, 28)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(stream, "PNG")
    return stream.getvalue()


def greys(video: Video) -> list[int]:
    """Brightness of each frame, at its centre."""
    return [frame.getpixel((frame.width // 2, frame.height // 2))[0] for frame in video.frames]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Two seconds at 10 frames a second, each brighter than the one before: 0, 10, ... 190."""
    cv2 = pytest.importorskip("cv2", reason="writes the test's video; comes with vLLM")
    import numpy as np

    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (64, 48))
    for number in range(20):
        writer.write(np.full((48, 64, 3), 10 * number, dtype=np.uint8))
    writer.release()
    return path


def rules(file=None, **changes) -> VideoRules:
    return VideoRules(ImageRules(None if file is None else file.parent), **changes)


def test_frames_of_a_list_are_thinned_evenly_and_keep_their_times():
    video = open_video([png(10 * number) for number in range(9)], VideoRules(fps=4.0, max_frames=3))
    assert greys(video) == [0, 40, 80]
    assert video.fps == 1.0  # three frames over the two seconds that nine frames at 4 fps last
    assert open_video([png(0), png(10)], VideoRules(fps=4.0)).fps == 4.0
    assert open_video(video, VideoRules()) is video


def test_a_million_frames_open_only_those_that_are_drawn(monkeypatch):
    opened = []
    monkeypatch.setattr(videos, "open_image", lambda value, _: opened.append(value) or Image.new("RGB", (28, 28)))
    assert len(open_video(["frame.png"] * 10**6, VideoRules(max_frames=8)).frames) == 8
    assert len(opened) == 8


def test_large_frames_are_shrunk():
    video = open_video([png(0, (100, 50)), png(9, (100, 50))], VideoRules(max_pixels=1250))
    assert [frame.size for frame in video.frames] == [(50, 25), (50, 25)]


def test_frames_of_a_file_are_drawn_at_the_rate(file):
    pytest.importorskip("decord")
    video = open_video(file.name, rules(file, fps=2.0))
    assert len(video.frames) == 4 and video.fps == 2.0 and video.frames[0].size == (64, 48)
    assert greys(video) == pytest.approx([0, 60, 130, 190], abs=6)  # frames 0, 6, 13 and 19 of a lossy file
    from_bytes = open_video(file.read_bytes(), rules(fps=2.0))
    assert greys(from_bytes) == greys(video)
    assert greys(open_video([file.name], rules(file, fps=2.0))) == greys(video)  # one list too many
    encoded = base64.b64encode(file.read_bytes()).decode()
    for text in (encoded, f"data:video/mp4;base64,{encoded}", {"bytes": encoded}):
        assert greys(open_video(text, rules(fps=2.0))) == greys(video)
    record = open_video({"bytes": None, "path": file.name}, rules(file, fps=2.0))
    assert greys(record) == greys(video)


def test_a_rate_above_the_files_takes_all_its_frames(file):
    pytest.importorskip("decord")
    video = open_video(file.name, rules(file, fps=60.0))
    assert len(video.frames) == 20 and video.fps == 10.0
    assert len(open_video(file.name, rules(file, fps=60.0, max_frames=6)).frames) == 6


BROKEN = [
    ("no frames", [], "video too short", "0 frames"),
    ("one frame", [png(0)], "video too short", "1 frames; at least 2"),
    ("null frame", [png(0), None], "image unreadable", "null"),
    ("an image", png(0), "video unreadable", "put the frames of a video into a list"),
    ("broken base64", {"bytes": "A" * 301}, "video unreadable", "base64 text is broken"),
    ("broken data URL", "data:video/mp4;base64,A", "video unreadable", "base64 text is broken"),
    ("address in a record", {"url": "https://example.org/clip.mp4"}, "video is a URL", "download"),
    ("object of other keys", {"v1": "a.mp4"}, "video unreadable", "neither bytes nor a path"),
    ("one image file", ["0.png"], "video too short", "1 frames"),
    ("frame that is no image", [png(0), b"text"], "image unreadable", "bytes"),
    ("frames of two sizes", [png(0), png(0, (30, 30))], "video frames", "28 x 28, 30 x 30"),
    ("number", 7, "video unreadable", "7 (int)"),
    ("empty record", {"path": ""}, "video unreadable", "neither bytes nor a path"),
    ("address", "https://example.org/clip.mp4", "video is a URL", "download"),
    ("missing file", "clip.mp4", "video missing", "clip.mp4"),
    ("outside the folder", "../clip.mp4", "video outside", "media_root"),
    ("broken header", b"\x00\x00\x00\x18ftypmp42" + bytes(100), "video unreadable", "112 bytes"),
    ("text", b"no video at all", "video unreadable", "15 bytes"),
]


@pytest.mark.parametrize(("value", "reason", "words"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_video_is_a_bad_row(value, reason, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadRow) as error:
        open_video(value, rules())
    assert error.value.reason == reason and words in error.value.detail
    assert "Error:" not in error.value.detail and str(tmp_path / "tmp") not in error.value.detail


def test_without_a_decoder_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(videos.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "clip.mp4").write_bytes(b"video")
    with pytest.raises(UserError, match=r"pip install 'rlfr-vlm\[video\]'"):
        open_video("clip.mp4", VideoRules(ImageRules(tmp_path)))


def test_logs_show_first_middle_and_last_frame_and_previews_a_strip():
    video = open_video([png(10 * number) for number in range(9)], VideoRules())
    pictures = pictures_of({"images": [Image.new("RGB", (5, 5))], "videos": [video]})
    assert [picture.getpixel((0, 0))[0] for picture in pictures] == [0, 0, 40, 80]
    strip = strip_of(video, most=3)
    assert strip.size == (84, 28)
    assert [strip.getpixel((28 * place + 1, 1))[0] for place in range(3)] == [0, 40, 80]


def rows_of(tmp_path, *rows, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"answer": "7", **row}) for row in rows))
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(10 * number))
    return load_rows(str(path), columns=("prompt", "answer"), bad_row_limit=0.0, **options)


FRAMES = ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "<video>which?", "videos": FRAMES},  # a list of image files is one video
        {"prompt": "which?", "videos": [FRAMES]},
        {"prompt": "which?", "video": FRAMES},
        {
            "prompt": [
                {"role": "user", "content": [{"type": "video", "video": FRAMES}, {"type": "text", "text": "which?"}]}
            ]
        },
    ],
    ids=["marker", "list of videos", "alias", "block"],
)
def test_a_video_stands_in_the_column_or_in_a_block(tmp_path, row):
    [loaded] = rows_of(tmp_path, row)
    [video] = loaded["videos"]
    [message] = loaded["prompt"]
    assert greys(video) == [0, 10, 20]
    assert message["content"] == [{"type": "video", "video": video}, {"type": "text", "text": "which?"}]


def test_images_and_videos_of_a_prompt_keep_their_places(tmp_path):
    [row] = rows_of(tmp_path, {"prompt": "a<video>b<image>c", "images": ["2.png"], "videos": FRAMES})
    kinds = [block["type"] for block in row["prompt"][0]["content"]]
    assert kinds == ["text", "video", "text", "image", "text"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "<video><video>q", "videos": [FRAMES]}, r"2 video place\(s\) but its row has 1 video"),
        ({"prompt": "<video>q"}, r"1 video place\(s\) but its row has 0 video"),
        ({"prompt": "q", "videos": [FRAMES, None]}, "video 2 of 2 is null"),
        ({"prompt": "q", "audio": "a.wav"}, "audio"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "video", "video": "a.mp4", "video_start": 1.0}]}]},
            "has the key video_start, not read",
        ),
        (
            {"prompt": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}], "videos": ["b.mp4"]},
            "a block names 'a.mp4', and the column videos 'b.mp4'",
        ),
    ],
)
def test_placeholders_and_videos_that_do_not_match(tmp_path, row, words):
    with pytest.raises(UserError, match=words):
        list(rows_of(tmp_path, row))


def test_videos_that_a_hub_dataset_embeds_are_read_when_their_row_is(file):
    """A column of datasets' own type Video, and of lists of it; `RLFRTrainer` takes them, too."""
    pytest.importorskip("decord")
    import datasets

    from rlfr_vlm.trainer.setup import prepare_dataset

    record = {"bytes": file.read_bytes(), "path": None}
    for feature, value in ((datasets.Video(), record), (datasets.List(datasets.Video()), [record])):
        features = datasets.Features({"prompt": datasets.Value("string"), "videos": feature})
        stored = datasets.Dataset.from_dict({"prompt": ["q"], "videos": [value]}, features=features)
        [video] = prepare_dataset(stored, None)[0]["videos"]
        assert len(video.frames) == 4 and video.fps == 2.0


def test_the_clean_set_of_videos_loads_again(file, tmp_path, monkeypatch):
    """Paths below media_root, lists of frames, and bytes in a block of the prompt (as Parquet may have them)."""
    pytest.importorskip("decord")
    import datasets

    from rlfr_vlm.data.check import check_rows
    from rlfr_vlm.data.clean import write_clean

    monkeypatch.chdir(tmp_path)
    media = tmp_path / "media"
    media.mkdir()
    (media / "clip.mp4").write_bytes(file.read_bytes())
    for number in range(2):
        (media / f"{number}.png").write_bytes(png(number))
    rows = [{"prompt": "q1", "videos": ["clip.mp4"]}, {"prompt": "q2", "videos": [["0.png", "1.png"]]}]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({**row, "answer": "7"}) for row in rows))
    blocks = [{"type": "video", "video": file.read_bytes()}, {"type": "text", "text": "q"}]
    stored = [{"prompt": [{"role": "user", "content": blocks}], "answer": "7"}]
    datasets.Dataset.from_list(stored).to_parquet(str(tmp_path / "rows.parquet"))
    for name, root, frames in (("rows.jsonl", str(media), [4, 2]), ("rows.parquet", None, [4])):
        options = DataOptions(dataset_name=name, media_root=root)
        report = check_rows(options, ("prompt", "answer"), progress=False)
        _, settings = write_clean(options, report, tmp_path / "clean")
        clean = load_rows(settings["dataset_name"], columns=("prompt", "answer"), media_root=settings["media_root"])
        assert [len(clean[number]["videos"][0].frames) for number in range(len(clean))] == frames


def test_a_file_of_one_frame_is_too_short(tmp_path):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("decord")
    import numpy as np

    writer = cv2.VideoWriter(str(tmp_path / "one.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (64, 48))
    writer.write(np.zeros((48, 64, 3), dtype=np.uint8))
    writer.release()
    with pytest.raises(BadRow, match=r"one.mp4 has fewer than 2 frames") as error:
        open_video("one.mp4", VideoRules(ImageRules(tmp_path)))
    assert error.value.reason == "video too short"


def test_settings_of_frames(tmp_path):
    [row] = rows_of(tmp_path, {"prompt": "q", "videos": FRAMES}, video_max_frames=2, video_fps=4.0)
    assert greys(row["videos"][0]) == [0, 20] and row["videos"][0].fps == 2.0
    for name, value in (("video_fps", 0.0), ("video_max_frames", 1), ("video_max_pixels", 0)):
        with pytest.raises(UserError, match=name):
            DataOptions(**{name: value})


@pytest.mark.parametrize("name", ["LLaVA", "GLM-4.1V", "Llama"])
def test_families_without_videos_refuse_them(tmp_path, name):
    from tests.models.small_families import TEXTS, VISION, build_processor

    rows_of(tmp_path, {"prompt": "q", "videos": FRAMES})
    rows = read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl")))
    rows.suit(build_processor((VISION | TEXTS)[name]))
    with pytest.raises(BadRow, match=r"take no videos here|text-only"):
        rows.parse(0)


def test_prompts_with_videos_are_counted_before_training(tmp_path):
    """Exactly as the processor makes them, for Qwen2.5-VL and for Qwen3-VL, which writes the times between frames."""
    from rlfr_vlm.data.encode import encode_prompts
    from rlfr_vlm.data.lengths import TokenCounter, plan_lengths, sized_row
    from tests.models.small_families import VISION, build_processor

    rows_of(tmp_path, {"prompt": "q", "videos": FRAMES}, {"prompt": "q<image>", "images": ["0.png"]})
    for name in ("Qwen2.5-VL", "Qwen3-VL"):
        processor = build_processor(VISION[name])
        processor.video_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28}
        rows = read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl")))
        rows.suit(processor)
        exact = [int(encode_prompts(processor, [rows.load(number)]).attention_mask.sum()) for number in (0, 1)]
        counter = TokenCounter(processor)
        for number in (0, 1):
            row, _, sizes = sized_row(rows, counter, number)
            assert counter.prompt_tokens([row], [sizes]) == [exact[number]]
        plan = plan_lengths(rows, processor, exact[0] - 1, "drop")
        assert plan.kept == ([1] if exact[1] < exact[0] else [])


def test_the_decoders_of_qwen_vl_utils_are_where_they_were():
    """Read in qwen-vl-utils 0.0.14."""
    from qwen_vl_utils.vision_process import VIDEO_READER_BACKENDS, get_video_reader_backend

    assert set(videos.DECODERS) < set(VIDEO_READER_BACKENDS)
    assert get_video_reader_backend() in VIDEO_READER_BACKENDS
