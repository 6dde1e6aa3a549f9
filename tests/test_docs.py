"""What the documentation shows works: its YAML is valid, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configs.resolve import resolve
from orchestrator.cli import COMMANDS
from search_spaces.load import load_space

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = dict(
    re.findall(r"```yaml\n# (\w+\.yaml)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name) if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if page.name != "index.md" and f"({page.name})" not in index] == []


def test_the_example_space_of_the_readme_is_sound(tmp_path: Path) -> None:
    (tmp_path / "my_space.yaml").write_text(EXAMPLES["my_space.yaml"], encoding="utf-8")
    checked = load_space(tmp_path / "my_space.yaml")
    assert set(checked.space.parameters) >= {"loss.omega", "optimizer.momentum"}


def test_the_example_configuration_of_the_readme_is_sound(tmp_path: Path) -> None:
    (tmp_path / "my_run.yaml").write_text(EXAMPLES["my_run.yaml"], encoding="utf-8")
    config = resolve(tmp_path / "my_run.yaml", ["--optimizer.learning_rate", "5e-4"]).config
    assert (config.data.name, config.training.epochs, config.optimizer.learning_rate) == ("cifar10", 20, 5e-4)


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"`spikebench ([a-z-]+)[^`]*`", text))
    assert shown == set(COMMANDS)
