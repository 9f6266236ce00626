"""Keep libraries from talking over our own progress lines."""

import warnings


def calm() -> None:
    """Quiet transformers' and datasets' notices and bars; errors still show."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", category=FutureWarning)
