"""`nearkin` and `python -m nearkin`: an interrupt is one line from the first moment on."""

import sys


def main() -> None:
    """The command line, whose import takes a second or two."""
    try:
        from nearkin.app.main import main as carry_out
    except KeyboardInterrupt:
        print("nearkin: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    carry_out()


if __name__ == "__main__":
    main()
