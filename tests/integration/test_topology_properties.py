"""Generated topologies with every kind of object, on a real RabbitMQ."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from broker.topology.drift import find_drift
from broker.topology.export.emit import to_yaml
from tests.integration.drifting import drift_one
from tests.integration.whole import environment, forget, site
from tests.rabbitmq import RabbitMQ
from tests.unit.topology.strategies import whole_documents

PREFIX = "property-test-"
DOCUMENTS = whole_documents(prefix=PREFIX)
_SETTINGS: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
    # Every attempt at a smaller example takes a virtual host: soak explains, test only fails.
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],
}
FEW = settings(max_examples=12, **_SETTINGS)
HUNDREDS = settings(max_examples=300, **_SETTINGS)


def goes_round(rabbitmq: RabbitMQ, folder: Any, document: dict[str, Any]) -> None:
    """Apply, plan, export, plan again, export again."""
    with site(rabbitmq, folder) as here:
        try:
            wanted = here.load(document)
            here.apply(wanted)
            assert here.changes(wanted) == []
            made = here.export()
            assert made.complaints == ()
            text = to_yaml(made.document)
            with environment(made.variables):
                assert here.changes(here.read(text)) == []
            assert to_yaml(here.export().document) == text
            assert {each.reason for each in made.left_out} <= {"the user that is logged in"}
        finally:
            forget(here.management, here.vhost, PREFIX)


def drift_is_named(
    rabbitmq: RabbitMQ, folder: Any, document: dict[str, Any], data: st.DataObject
) -> None:
    """Apply, change one object by hand, and find exactly that."""
    with site(rabbitmq, folder) as here:
        try:
            wanted = here.load(document)
            here.apply(wanted)
            expected = drift_one(here.management, here.look(wanted), data)
            found = here.look(wanted)
            assert {
                (change.action, change.identity): {each.attribute for each in change.differences}
                for change in found.plan.changes
            } == expected.changes
            assert set(found.plan.unmanaged) == expected.unmanaged
            words = {"create": "deleted", "update": "changed", "replace": "changed"}
            assert {
                (each.what, each.identity): {
                    difference.attribute for difference in each.differences
                }
                for each in find_drift(found)
                if each.what != "added"
            } == {
                (words[action], identity): attributes
                for (action, identity), attributes in expected.changes.items()
            }
        finally:
            forget(here.management, here.vhost, PREFIX)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tmp_path_factory.mktemp("topologies")


@given(document=DOCUMENTS)
@FEW
def test_the_plan_is_empty_after_apply_and_of_an_export(
    rabbitmq: RabbitMQ, folder: Any, document: dict[str, Any]
) -> None:
    goes_round(rabbitmq, folder, document)


@given(document=DOCUMENTS, data=st.data())
@FEW
def test_drift_is_named_exactly(
    rabbitmq: RabbitMQ, folder: Any, document: dict[str, Any], data: st.DataObject
) -> None:
    drift_is_named(rabbitmq, folder, document, data)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@given(document=DOCUMENTS)
@HUNDREDS
def test_hundreds_of_plans_are_empty_after_apply_and_of_an_export(
    rabbitmq: RabbitMQ, folder: Any, document: dict[str, Any]
) -> None:
    goes_round(rabbitmq, folder, document)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@given(document=DOCUMENTS, data=st.data())
@HUNDREDS
def test_hundreds_of_drifts_are_named_exactly(
    rabbitmq: RabbitMQ, folder: Any, document: dict[str, Any], data: st.DataObject
) -> None:
    drift_is_named(rabbitmq, folder, document, data)
