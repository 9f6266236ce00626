"""Fingerprint of a model folder, which changes with the weights without reading all of them."""

import hashlib
from pathlib import Path

SAMPLES, SAMPLE_BYTES = 16, 1 << 16  # read per weight file; enough that any training step changes the fingerprint
SUFFIXES = (".safetensors", ".bin")


def fingerprint(folder: Path) -> str:
    """Return a hash of the JSON files and of sizes and samples of the weight files in a model folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json" and path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
        elif path.suffix in SUFFIXES and path.is_file():
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with path.open("rb") as stream:
                for index in range(SAMPLES):
                    stream.seek(size * index // SAMPLES)
                    digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]
