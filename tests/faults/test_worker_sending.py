"""What a task sends by Celery's own means goes where, and as urgently as, its contract says."""

from __future__ import annotations

from tests.faults.working import ACCOUNTED, QUEUE, Field, check
from tests.letters import inside
from tests.provision import provision, topology_of

SENDS = """

@job("sends")
def sends():
    from celery import current_app
    from consumers.job import current_job
    # One by its name, one as a signature; the queue of neither is said or declared.
    current_app.send_task("later", kwargs={"seconds": 0}, task_id=f"{current_job().id}-named")
    later.s(seconds=0).apply_async(task_id=f"{current_job().id}-signed")
    note("done")

@job("later")
def later(seconds):
    note("done")
"""
MORE = """  sends: {task: "accounted:sends", exchange: jobs, routing_key: work.sends}
  later: {task: "accounted:later", exchange: jobs, routing_key: elsewhere.later, priority: 7}
"""
ELSEWHERE = """  elsewhere: {bindings: [{exchange: jobs, routing_key: "elsewhere.#"}]}
jobs:
"""


def test_what_a_task_sends_has_its_contracts_priority(field: Field) -> None:
    text = field.path.read_text()
    text = text.replace("jobs:\n  work:", ELSEWHERE + "  work:").replace(
        "workers:", MORE + "workers:"
    )
    field.topology, field.path = topology_of(field.folder, text)
    (field.folder / "accounted.py").write_text(ACCOUNTED + SENDS)
    provision(field.topology, field.address)
    daemon = field.start()
    (sender,) = field.publish(1, seconds=None, job="sends")
    field.wait_all_done()
    assert daemon.stop() == 0
    sent = {each.id: each for each in inside(field.address, "elsewhere")}
    assert sent.keys() == {f"{sender}-named", f"{sender}-signed"}
    for each in sent.values():
        assert each.routing_key == "elsewhere.later"
        assert each.properties["priority"] == 7
        assert each.properties["delivery_mode"] == 2
    assert not inside(field.address, QUEUE)
    check(field.close())
