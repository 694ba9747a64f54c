"""The aim-local command."""


def main() -> None:
    raise SystemExit("not there yet")
