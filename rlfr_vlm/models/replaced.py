"""Replace a method of one object for a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def method_replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let `owner.name` be a function inside the context; afterwards it is what it was, also if the object had its own.

    >>> class Model:
    ...     def generate(self):
    ...         return "own"
    >>> model = Model()
    >>> with method_replaced(model, "generate", lambda: "replaced"):
    ...     model.generate()
    'replaced'
    >>> model.generate(), vars(model)
    ('own', {})
    """
    own = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
