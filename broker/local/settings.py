"""The settings of a private node: RabbitMQ's configuration and environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from broker.errors import LocalNodeError
from broker.local.process import NODE_MARKER
from broker.local.state import HOST, NEWEST, Home, Node, Series, State, private_folder

_HERE = Path(__file__).parent
# In a checkout the files of deploy/, in an installed package the copies beside this module.
_SHARED = (_HERE.parents[1] / "deploy" / "rabbitmq", _HERE / "rabbitmq")
# The newest RabbitMQ has the type of exchange by itself that replacing a queue takes.
_ONLY_OLDER = "rabbitmq_sharding"


def shared_file(name: str) -> Path:
    """Return the path of ``rabbitmq.conf`` or ``enabled_plugins`` of deploy/rabbitmq.

    Raises:
        LocalNodeError: the installation lacks it.
    """
    for folder in _SHARED:
        if (folder / name).exists():
            return folder / name
    raise LocalNodeError(f"RabbitMQ's {name} is missing beside {_HERE}; install rabbitry anew")


def configuration(state: State, *, host: str, amqp: int, management: int, prometheus: int) -> str:
    """Return the whole ``rabbitmq.conf``: the shared settings, then this node's own.

    Args:
        state: whose user and password the node begins with.
        host: the address that all listeners take.
        amqp, management, prometheus: the ports that they take.
    """
    return f"""{shared_file("rabbitmq.conf").read_text()}
# -- of this node ---------------------------------------------------------------------
cluster_name = rabbitry-{amqp}
listeners.tcp.default = {host}:{amqp}
management.tcp.ip = {host}
management.tcp.port = {management}
prometheus.tcp.ip = {host}
prometheus.tcp.port = {prometheus}
default_user = {state.user}
default_pass = {state.password}
loopback_users = none
"""


def plugins(series: Series | None) -> str:
    """Return ``enabled_plugins`` for a series of RabbitMQ; None is the newest."""
    text = shared_file("enabled_plugins").read_text()
    return text if series in (None, NEWEST) else text.replace("]", f",{_ONLY_OLDER}]")


def write(
    folder: Path, state: State, node: Node, *, cookie: str, series: Series | None = None
) -> None:
    """Write the settings of a node of a series that runs on this machine itself."""
    private_folder(folder)
    text = configuration(
        state,
        host=HOST,
        amqp=node.ports.amqp,
        management=node.ports.management,
        prometheus=node.ports.prometheus,
    )
    (folder / "rabbitmq.conf").write_text(text)
    (folder / "enabled_plugins").write_text(plugins(series))
    secret = folder / ".erlang.cookie"
    if not secret.exists():
        secret.touch(0o600)
        secret.write_text(cookie)
        secret.chmod(0o400)


def environment(home: Home, node: Node, folder: str) -> Mapping[str, str]:
    """Return RabbitMQ's environment: every path and port its own.

    Args:
        home: marks the process, so that `down` finds it.
        node: its name and ports.
        folder: the settings' folder as the node sees it.
    """
    return {
        NODE_MARKER: str(home.path),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": folder,
        "RABBITMQ_NODENAME": node.name,
        "RABBITMQ_DIST_PORT": str(node.ports.distribution),
        "ERL_EPMD_PORT": str(node.ports.epmd),
        "ERL_EPMD_ADDRESS": HOST,
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": f"{folder}/data",
        "RABBITMQ_LOG_BASE": f"{folder}/log",
        "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
        # No second file by accident: this machine's own RabbitMQ may have one.
        "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
        "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
        "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
        "RABBITMQ_PID_FILE": f"{folder}/pid",
    }
