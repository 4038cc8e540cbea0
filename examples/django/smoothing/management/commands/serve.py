"""`manage.py serve`: RabbitMQ, topology, worker and server by one command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.core.management.base import BaseCommand
from django.core.wsgi import get_wsgi_application
from web.services import add_options, run

from smoothing.calls import close

PROJECT = Path(__file__).resolve().parents[3]


@contextmanager
def application() -> Iterator[WSGIHandler]:
    """Give the project's application; its calls are closed in the end."""
    try:
        yield get_wsgi_application()
    finally:
        close()


class Command(BaseCommand):
    """Start everything that the project needs, and serve it."""

    help = (
        "Start RabbitMQ unless RABBITRY_URL names one, apply the topology, start a worker, serve."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take the options that both examples have."""
        add_options(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until Ctrl-C."""
        # The worker has Django's settings too, as Celery sees to it: jobs may use models.
        sys.exit(
            run(
                application,
                port=options["port"],
                worker=not options["no_worker"],
                paths=[PROJECT],
            )
        )
