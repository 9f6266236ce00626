"""Build help text from the option dataclasses without importing torch."""

import dataclasses
import textwrap


def describe_options(usage: str, summary: str, *classes: type, inherited: str) -> str:
    """Return the help of a command configured by dataclasses.

    Args:
        usage: the command line.
        summary: what the command does.
        classes: dataclasses whose fields are listed one by one.
        inherited: where the other options are documented.
    """
    lines = [f"usage: {usage}", "", summary, ""]
    for cls in classes:
        lines.append(f"{(cls.__doc__ or cls.__name__).strip().splitlines()[0]}")
        for option in dataclasses.fields(cls):
            default = option.default
            if option.default_factory is not dataclasses.MISSING:
                default = option.default_factory()
            text = f"{option.metadata.get('help', '')} (default: {_shown(default)})"
            lines += textwrap.wrap(text, 112, initial_indent=f"  --{option.name:<24} ", subsequent_indent=" " * 29)
        lines.append("")
    lines += textwrap.wrap(inherited, 112)
    return "\n".join(lines)


def _shown(default: object) -> str:
    if isinstance(default, list):
        return " ".join(map(str, default))
    return "none" if default in (None, "") else str(default).lower() if isinstance(default, bool) else str(default)
