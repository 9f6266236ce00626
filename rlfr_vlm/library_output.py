"""Silence the notices and progress bars of libraries, so that they do not interleave with our own output."""

import warnings

# Libraries whose FutureWarnings report deprecations that only we can act on; a user's own code keeps its warnings.
LIBRARIES = ("accelerate", "datasets", "huggingface_hub", "peft", "torch", "transformers", "trl")


def silence_libraries() -> None:
    """Hide notices, deprecation warnings and progress bars of the libraries we use; errors still show."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true")
    warnings.filterwarnings("ignore", category=FutureWarning, module=rf"(?:{'|'.join(LIBRARIES)})(?:\.|$)")
