"""What mends each kind of bad row, for the report of `rlfr check-data`."""

MENDS = {
    "json": "write one JSON object a line, with each key once",
    "malformed": "write the row in the documented format, or name the format with dataset_format",
    "no prompt": "fill the column, or name it with dataset_columns: [prompt=...]",
    "no answer": "fill the column, or name it with dataset_columns: [answer=...]",
    "no response": "fill the column, or name it with dataset_columns: [response=...]",
    "prompt": "give a text, or messages of system, user and assistant that end in a question",
    "prompt too long": "raise max_prompt_tokens, or set long_prompts: downscale",
    "text": "remove the token, or read the file again in its own encoding and write UTF-8",
    "answer": "give a text, a finite number or a list of them; leave out rows without an answer",
    "gold answer": "give the final answer alone, in LaTeX that is complete",
    "options": "give 2 to 10 different texts, and their letter, their text or a 0-based index as answer",
    "response": "give the expert's answer as a text",
    "two answers": "find out which answer is right; the clean set has the first row",
    "duplicate": "nothing to do if rows are repeated on purpose; the clean set has the first one",
    "image": "train a policy with a vision tower, or remove the images",
    "image places": "mark each image once with <image> and each video with <video>, or none of them",
    "image missing": "write the paths as the files are named, relative to media_root",
    "image outside": "set media_root to the folder that holds all images",
    "image unreadable": "save the image as PNG or JPEG",
    "image is a URL": "download the images and name the files",
    "image too small": "remove the row: the image is a placeholder",
    "image too large": "make the image smaller, or raise image_pixel_ceiling",
    "image ratio": "cut the image, or remove the row",
    "image limits": "write min_pixels and max_pixels, or resized_height and resized_width, as numbers of pixels",
    "video": "train a policy of a family that takes videos, or remove the videos",
    "video missing": "write the paths as the files are named, relative to media_root",
    "video outside": "set media_root to the folder that holds all videos",
    "video unreadable": "write the video again, e.g. with FFmpeg, or give its frames as images",
    "video is a URL": "download the videos and name the files",
    "video too short": "give at least 2 frames, or an image",
    "video frames": "give frames of one size",
}


def mend_of(reason: str) -> str:
    """Return what mends a kind of bad row; for a column that a data set needs besides, to fill it."""
    return MENDS.get(reason, f"fill the column, or name it with dataset_columns: [{reason.removeprefix('no ')}=...]")
