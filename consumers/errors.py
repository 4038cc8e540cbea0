"""The errors of workers; the others are in `broker.errors`.

RabbitryError
├── StoreError                   the record of finished jobs cannot be used    exit 1
├── NotConsumed                  queue, worker: no such consumer there         exit 1
└── WorkerError                  a daemon that must not start                  exit 1
    ├── TaskNotImported          traceback: of the import                      exit 1
    └── QueueDiffers             queue: it is not what the file says           exit 3
"""

from __future__ import annotations

from broker.errors import EXIT_DIFFERS, RabbitryError, WorkerError


class StoreError(RabbitryError):
    """The record of finished jobs cannot be read or written: no job that needs it is run."""


class NotConsumed(RabbitryError):
    """RabbitMQ lists no consumer of a worker on a queue of its own.

    Attributes:
        queue: which has none.
        worker: whose is missing.
    """

    def __init__(self, text: str, *, queue: str, worker: str) -> None:
        self.queue = queue
        self.worker = worker
        super().__init__(text)


class TaskNotImported(WorkerError):
    """The module of a task cannot be imported.

    Attributes:
        traceback: of the import, as text.
    """

    def __init__(self, text: str, *, traceback: str) -> None:
        self.traceback = traceback
        super().__init__(text)


class QueueDiffers(WorkerError):
    """A queue is there, and is not what the file says.

    Attributes:
        queue: its name.
    """

    exit_code = EXIT_DIFFERS

    def __init__(self, text: str, *, queue: str) -> None:
        self.queue = queue
        super().__init__(text)
