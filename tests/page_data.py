"""Read the data that a page embeds for its scripts."""

import base64
import gzip
import json
import re

from rlfr_vlm.files import JsonObject


def decompressed(text: str) -> JsonObject:
    """Data that `rlfr_vlm.page.html.compressed` turned into `text`."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def page_data(html: str) -> JsonObject:
    """Data embedded in a page."""
    match = re.search(r'id="data">([^<]*)<', html)
    assert match is not None
    return decompressed(match[1])
