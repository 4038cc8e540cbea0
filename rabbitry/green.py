"""``python -m rabbitry.green``: the same commands, with the standard library made gevent's first.

Nothing else may be imported before: what has a lock or a socket by then keeps the blocking one.
"""

from gevent import monkey

monkey.patch_all()

from rabbitry.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
