"""A finished message as the columns of a row: exact, without pickle, the same in every database.

Headers and properties are AMQP's own field tables, the bytes that travel; the body is the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.body import Body
from broker.errors import InvalidMessage
from broker.message import Message

# In the order in which rows are written and read.
COLUMNS = (
    *("id", "name", "exchange", "routing_key", "content_type", "content_encoding"),
    *("headers", "properties", "body"),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message, the job that it is of, and where it goes."""

    name: str
    exchange: str
    routing_key: str
    message: Message

    def values(self) -> tuple[Any, ...]:
        """Return the values of `COLUMNS`.

        Raises:
            InvalidMessage: AMQP cannot express a header or property.
        """
        message = self.message
        return (
            message.id,
            self.name,
            self.exchange,
            self.routing_key,
            message.body.content_type,
            message.body.content_encoding,
            _table_bytes(message.id, message.headers),
            _table_bytes(message.id, message.properties),
            message.body.content,
        )

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Stored:
        """Read the values of `COLUMNS`.

        Raises:
            InvalidMessage: headers or properties are not AMQP's tables.
        """
        id, name, exchange, routing_key, kind, encoding, headers, properties, content = values
        message = Message(
            id,
            Body(bytes(content), kind, encoding),
            _table_of(id, headers),
            _table_of(id, properties),
        )
        return cls(name, exchange, routing_key, message)


def _table_bytes(id: str, table: Mapping[str, Any]) -> bytes:
    from amqp.serialization import dumps

    try:
        encoded: bytes = dumps("F", [dict(table)])
    # py-amqp raises what struct, str and its own tables raise.
    except Exception as exc:
        raise InvalidMessage(f"a header or property of message {id} cannot be sent: {exc}") from exc
    return encoded


def _table_of(id: str, encoded: Any) -> dict[str, Any]:
    from amqp.serialization import loads

    try:
        table: dict[str, Any] = loads("F", bytes(encoded), 0)[0][0]
    # The bytes come from a database, where anything may have written.
    except Exception as exc:
        raise InvalidMessage(
            f"the stored headers or properties of message {id} cannot be read: {exc}"
        ) from exc
    return table
