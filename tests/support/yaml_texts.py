"""Write YAML files for a test and read what is said about them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from configs.problems import ConfigError

BASE = """
    model: {name: stal_srnn, hidden_size: 32}
    encoder:
      name: convstal
      hidden_channels: 16
    loss: {name: ce_ss, omega: 1e-4}
    training: {epochs: 3}
"""


def write(path: Path, text: str = BASE) -> Path:
    """Write a file, without the indentation of the test around it; without a text a small valid configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip("\n"))
    return path


def told(error: pytest.ExceptionInfo[ConfigError], folder: Path) -> list[str]:
    """Return the problems of a raised error as the user sees them, files named from the folder."""
    return [str(problem).replace(f"{folder}/", "") for problem in error.value.problems]
