"""Every block of code that the README and the pages show is run by a test, and every command has these options."""

import re
import shlex

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from howsparse.cli import app
from howsparse.cli.experiments import method_list, sparsity_list
from howsparse.cli.pruning import parse_target
from howsparse.methods import load_method
from pages_for_tests import DOCS, ROOT, blocks, commands

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="not a checkout")

# Which test runs the blocks of a page, and how many there are. A block that cannot run has a comment above it:
# <!-- excerpt: REASON -->
RUN_BY = {
    "README.md": ("tests/test_readme.py", 1),
    "CONTRIBUTING.md": ("tests/test_contributing.py", 2),
    "docs/tutorial.md": ("tests/test_docs_tutorial.py", 5),
    "docs/measure.md": ("tests/test_docs_measure.py", 4),
    "docs/prune.md": ("tests/test_docs_prune.py", 1),
    "docs/problem.md": ("tests/test_docs.py", 6),
    "docs/training.md": ("tests/integrations/test_training_page.py", 2),
    "docs/report.md": ("tests/report/test_page.py", 2),
    "docs/deploy.md": ("tests/deploy/test_speed_page.py", 2),
    "docs/deploy-files.md": ("tests/deploy/test_deploy_page.py", 2),
    "docs/howto/huggingface.md": ("tests/test_docs_howto.py", 1),
    "docs/howto/gpus.md": ("tests/test_docs_howto.py", 1),
}
PAGES = ["README.md", "CONTRIBUTING.md", *(str(page.relative_to(ROOT)) for page in sorted(DOCS.rglob("*.md")))]
LANGUAGES = {"", "python", "text", "yaml"}  # commands have no word after the backticks; text is what they print
EXCERPT = re.compile(r"^<!-- excerpt: .+ -->\n```python$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_is_run(page: str) -> None:
    number = len(blocks(page, "python")) - len(EXCERPT.findall((ROOT / page).read_text()))
    test, run = RUN_BY.get(page, ("", 0))
    assert number == run, f"{page} has {number} blocks of Python, and {run} are run by {test or 'a test'}"
    if test:
        assert page.rpartition("/")[2] in (ROOT / test).read_text(), f"{test} does not read {page}"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    """Another language would be run by no test."""
    fences = re.findall(r"^```(\S*)", (ROOT / page).read_text(), re.MULTILINE)[::2]
    assert set(fences) <= LANGUAGES


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_shown_have_the_options_there_are(page: str) -> None:
    """Each command is parsed, not run."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for line in commands(page):
        before, found, rest = line.partition("howsparse ")
        if not found or (before.strip() not in ("", "python -m") and not re.match(r"(torchrun|accelerate) ", before)):
            continue
        name, *arguments = shlex.split(rest, comments=True)
        options = group.commands[name].make_context(name, arguments).params
        for method in method_list(options.get("methods") or options.get("method") or "dense"):
            load_method(method)
        if name == "prune":
            assert parse_target(options["sparsity"]) is not None
            continue
        for sparsity in ("sparsities", "sparsity"):
            assert sparsity_list(str(options.get(sparsity) or "0.5"))
