"""The group that the commands of `rabbitry topology` belong to."""

from __future__ import annotations

import click


@click.group(
    epilog="""\b
Examples:
  rabbitry topology lint
  rabbitry topology plan
  rabbitry topology apply --yes"""
)
def topology() -> None:
    """What exists on the broker: look at changes first, then make them."""
