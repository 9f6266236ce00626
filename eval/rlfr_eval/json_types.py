"""Type aliases for parsed JSON objects: rows of run files, run.json, scores.json, request bodies."""

from collections.abc import Mapping
from typing import Any

JsonObject = dict[str, Any]
JsonMapping = Mapping[str, Any]  # a JSON object that is only read
