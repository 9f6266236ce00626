"""Open videos as frames with their times: files through qwen-vl-utils, or lists of frames that exist as images."""

import importlib.util
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.data.image_sizes import shrink
from rlfr_vlm.data.images import ImageRules, open_image
from rlfr_vlm.data.media_source import media_source, name_of
from rlfr_vlm.data.rows import FRAME_SUFFIXES, BadRow, Row
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_FRAMES = 2  # Qwen's video processors merge two frames into one
IMAGE_STARTS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM")
DECODERS = ("torchcodec", "decord")  # in the order in which qwen-vl-utils takes them


@dataclass(frozen=True)
class Video:
    """Frames of a video.

    Attributes:
        frames: RGB images of one size, in order of time; at least `MIN_FRAMES`.
        fps: how many of these frames there are in a second.
    """

    frames: "tuple[Image, ...]"
    fps: float


@dataclass(frozen=True)
class VideoRules:
    """How frames are drawn from videos.

    Attributes:
        images: rules for frames that are images; its media folder holds video files, too.
        fps: frames a second that are drawn from a file; the fps of a list of frames.
        max_frames: largest number of frames of a video; more are thinned out evenly.
        max_pixels: larger frames are shrunk to this many pixels; None leaves them.
    """

    images: ImageRules = field(default_factory=ImageRules)
    fps: float = 2.0
    max_frames: int = 32
    max_pixels: int | None = None


def open_video(value: object, rules: VideoRules) -> Video:
    """Return the frames of a video.

    Args:
        value: what `media_source` takes, or a list of frames as images are given.

    Raises:
        BadRow: the video cannot be found or decoded, or has too few frames; the detail names it.
        UserError: no decoder of video files is installed.
    """
    if isinstance(value, Video):
        return value
    value = unwrapped(value)
    if isinstance(value, list | tuple):
        return _video_of_frames(list(value), rules)
    source = media_source(value, rules.images.media_root, "video")
    if isinstance(source, Path):
        return _video_of_file(source, name_of(value, "video"), rules)
    if source.startswith(IMAGE_STARTS):
        raise BadRow("video unreadable", "the video is an image; put the frames of a video into a list of their own")
    with tempfile.NamedTemporaryFile(suffix=".video") as file:
        file.write(source)
        file.flush()
        return _video_of_file(Path(file.name), f"<{len(source)} bytes>", rules)


def unwrapped(value: object) -> object:
    """Return what a list of one path, or of one list, has in it; a list of frames as it is.

    >>> unwrapped(["a.mp4"]), unwrapped([["0.png", "1.png"]]), unwrapped(["0.png"])
    ('a.mp4', ['0.png', '1.png'], ['0.png'])
    """
    while isinstance(value, list | tuple) and len(value) == 1:
        [inner] = value
        is_path = isinstance(inner, str) and not inner.lower().endswith(FRAME_SUFFIXES)
        if not (is_path or isinstance(inner, list | tuple)):
            break
        value = inner
    return value


def name_of_video(value: object) -> str:
    """Return a short name of a video for messages, without its bytes."""
    if isinstance(value, list | tuple):
        return f"<{len(value)} frames>"
    return f"<{len(value.frames)} frames>" if isinstance(value, Video) else name_of(value, "video")


def pictures_of(row: Row) -> "list[Image]":
    """Return what a reader of a log sees of a row: its images, and first, middle and last frame of its videos."""
    pictures = list(row.get("images") or [])
    for video in row.get("videos") or []:
        pictures += [video.frames[index] for index in _evenly(len(video.frames), 3)]
    return pictures


def strip_of(video: Video, most: int = 8) -> "Image":
    """Return at most `most` frames of a video side by side."""
    from PIL import Image as PILImage

    frames = [video.frames[index] for index in _evenly(len(video.frames), most)]
    width, height = frames[0].size
    strip = PILImage.new("RGB", (width * len(frames), height))
    for index, frame in enumerate(frames):
        strip.paste(frame, (index * width, 0))
    return strip


def require_decoder() -> None:
    """Check that a decoder of video files is installed.

    Raises:
        UserError: there is none.
    """
    if not any(importlib.util.find_spec(name) for name in DECODERS):
        raise UserError(
            "Video files need a decoder, and this machine has none. Run: pip install 'rlfr-vlm[video]' (decord), or "
            "install torchcodec and FFmpeg. Lists of frames need none."
        )


def _video_of_frames(values: list[object], rules: VideoRules) -> Video:
    """Open at most `max_frames` of the frames, evenly spread."""
    if len(values) < MIN_FRAMES:
        raise BadRow("video too short", f"the video has {len(values)} frames; at least {MIN_FRAMES} are needed")
    indices = _evenly(len(values), rules.max_frames)
    frames = [open_image(values[index], rules.images) for index in indices]
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        shown = ", ".join(f"{width} x {height}" for width, height in sorted(sizes))
        raise BadRow("video frames", f"the frames of {name_of_video(values)} differ in size: {shown:.80}")
    fps = rules.fps * (len(indices) - 1) / (len(values) - 1)
    return Video(tuple(shrink(frame, rules.max_pixels) for frame in frames), fps)


def _video_of_file(path: Path, name: str, rules: VideoRules) -> Video:
    """Draw frames from a file as qwen-vl-utils does (read in 0.0.14, under a contract test)."""
    from PIL import Image
    from qwen_vl_utils.vision_process import VIDEO_READER_BACKENDS, get_video_reader_backend

    require_decoder()
    wanted = {"video": str(path), "fps": rules.fps, "min_frames": MIN_FRAMES, "max_frames": rules.max_frames}
    try:
        pixels, _, fps = VIDEO_READER_BACKENDS[get_video_reader_backend()](wanted)
    except Exception as error:  # each decoder has errors of its own
        reason = _first_line(error).replace(str(path), name).rstrip(". ")
        if "nframes should in interval" in reason:  # of qwen-vl-utils
            raise BadRow("video too short", f"{name} has fewer than {MIN_FRAMES} frames") from None
        raise BadRow("video unreadable", f"{name}: {reason}") from None
    frames = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in pixels]
    checked = [open_image(frame, rules.images) for frame in frames]
    return Video(tuple(shrink(frame, rules.max_pixels) for frame in checked), float(fps))


def _evenly(count: int, limit: int) -> list[int]:
    """Return at most `limit` indices below `count`, evenly spread, the first and the last among them.

    >>> _evenly(3, 8), _evenly(9, 3)
    ([0, 1, 2], [0, 4, 8])
    """
    if count <= limit:
        return list(range(count))
    return [round(step * (count - 1) / (limit - 1)) for step in range(limit)]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
