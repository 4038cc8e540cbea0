"""Django's commands; `serve` is ours and starts everything that the project needs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# What both web applications share. Behind what is installed: this folder is called as Django is.
sys.path.append(str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Run a command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    try:
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Error: the example needs Django: `pip install 'rabbitry[examples]'` first")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
