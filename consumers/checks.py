"""What a worker checks before it consumes: its name, its tasks, and that its pool can run them."""

from __future__ import annotations

import importlib
import inspect
import traceback
from typing import TYPE_CHECKING, Any

from broker.errors import WorkerError, did_you_mean
from broker.topology import Topology
from broker.topology.model import WorkerSpec
from consumers.errors import TaskNotImported

if TYPE_CHECKING:
    from celery import Celery


def worker_of(topology: Topology, name: str) -> WorkerSpec:
    """Return a worker of the topology. Raises WorkerError where it has none of this name."""
    spec = topology.workers.get(name)
    if spec is None:
        raise WorkerError(
            f"the topology has no worker {name!r}{did_you_mean(name, topology.workers)};"
            f" it has: {', '.join(topology.workers) or 'none'}"
        )
    return spec


def load_tasks(app: Celery, topology: Topology) -> None:
    """Import the tasks of all jobs and check that each is the one its job names.

    Raises:
        TaskNotImported: the import of a task failed; has its traceback.
        WorkerError: names the job and what is wrong with its task.
    """
    for name, spec in topology.jobs.items():
        if spec.task is None:
            continue
        module_name, _, attribute = spec.task.partition(":")
        try:
            module: Any = importlib.import_module(module_name)
        # Importing runs the user's code, which may raise anything.
        except (Exception, SystemExit) as exc:
            raise TaskNotImported(
                f"the task {spec.task!r} of job {name!r} cannot be imported:"
                f" {type(exc).__name__}: {exc}",
                traceback=_traceback_of_import(exc),
            ) from exc
        task = getattr(module, attribute, None)
        if task is None:
            raise WorkerError(f"job {name!r}: the module {module_name!r} has no {attribute!r}")
        if getattr(task, "name", None) != name:
            raise WorkerError(
                f"job {name!r}: {spec.task!r} is not its task; decorate it with @job({name!r})"
            )
    app.finalize()
    for name, rivals in app.rivals.items():
        raise WorkerError(
            f"job {name!r} has {len(rivals)} tasks, {' and '.join(sorted(rivals))}:"
            " give it one, and the others another name"
        )


def _traceback_of_import(exc: BaseException) -> str:
    """Return where an import failed, from the first line of the imported module on."""
    frames = exc.__traceback__
    # Ours, and importlib's: whoever reads it wrote neither.
    while frames is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    shown = exc.with_traceback(frames)
    return "".join(traceback.format_exception(shown, chain=True)).rstrip()


def _is_ours(filename: str) -> bool:
    return filename == __file__ or "importlib" in filename


def check_signatures(app: Celery, topology: Topology) -> None:
    """Check that each task takes the arguments that the file states for its job.

    Raises:
        WorkerError: names the job and the differences.
    """
    from consumers.agreement import differences
    from consumers.signature import Signature

    for name, spec in topology.jobs.items():
        if spec.task is None or spec.arguments is None:
            continue
        task: Any = app.tasks[name]
        # A batch's own function has lists of them.
        columns = getattr(task, "columns", None)
        function = inspect.unwrap(task.run) if columns is None else columns.one
        typed = type(getattr(task, "takes", None)) is Signature
        found = differences(function, spec.arguments, typed=typed)
        clauses = "; ".join(found)
        if clauses:
            raise WorkerError(
                f"job {name!r}: its task {spec.task!r} does not fit its `arguments:` in the file:"
                f" {clauses}"
            )


def check_pool(app: Celery, topology: Topology, name: str) -> None:
    """Check that a worker's pool can do what its jobs ask for.

    Raises:
        WorkerError: names the job, what it asks for, and what to change.
    """
    spec = topology.workers[name]
    if spec.pool != "prefork":
        for job in topology.jobs:
            limit_s = app.limits.stated_s(job, spec.queues)
            if limit_s is not None:
                raise WorkerError(
                    f"job {job!r} has a time limit of {limit_s:g} s, and the pool {spec.pool} of"
                    f" worker {name!r} cannot end a job: use the pool prefork, or run the job on"
                    " another worker"
                )
    if spec.pool == "gevent":
        for job in topology.jobs:
            task = app.tasks.get(job)
            if task is not None and inspect.iscoroutinefunction(task.run):
                raise WorkerError(
                    f"job {job!r} is an `async def`, of which the pool gevent of worker {name!r}"
                    " cannot run two at a time: use the pool prefork, threads or solo"
                )
