"""A parser of options that suggests the right name for a mistyped command, option or value."""

from __future__ import annotations

import argparse
import re

from semimedref_core.config import did_you_mean


class Parser(argparse.ArgumentParser):
    """An ``argparse`` parser with a hint if a name is close to a known one. Options must be spelt in full."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        """Refuses unknown options here, so that the hint names an option of this command."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str):
        """Ends with a usage error, status 2, and a hint."""
        super().error(message + self._hint(message))

    def _hint(self, message: str) -> str:
        if unknown := re.match(r"unrecognized arguments: (--[^\s=]+)", message):
            options = re.findall(r"--[\w-]+", self.format_help())
            return did_you_mean(unknown[1], dict.fromkeys(options))
        if wrong := re.search(r"invalid choice: '?(.+?)'? \(choose from (.*)\)", message):
            return did_you_mean(wrong[1], re.findall(r"[\w.-]+", wrong[2]))
        return ""
