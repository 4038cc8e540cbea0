"""Which mirror RabbitMQ's packages come from."""

from __future__ import annotations

from broker.local.debian import mirror_in


def test_the_mirror_is_the_first_of_whole_releases_of_debian() -> None:
    targets = """\
Somebody stable http://packages.example/apt
Debian bookworm-security http://one.example/debian-security
Debian bookworm cdrom://disc
Debian bookworm http://two.example/debian
Debian bookworm-updates http://three.example/debian
"""
    assert mirror_in(targets) == "http://two.example/debian"


def test_debootstrap_takes_its_own_mirror_where_apt_knows_none_of_debian() -> None:
    assert mirror_in("") == ""
    assert mirror_in("Ubuntu noble http://one.example/ubuntu\n") == ""
