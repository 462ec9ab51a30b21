"""Checks of the files in deploy/, one line each; called by scripts/test-deploy."""

import importlib
import pathlib
import sys
import time

from harness import CHECKS, FOLDER, Skipped

# Every module beside this one adds its checks.
for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
    if path.stem not in ("__main__", "harness"):
        importlib.import_module(path.stem)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = skipped = 0
    for name, function in CHECKS:
        begun = time.monotonic()
        try:
            result = function() or "ok"
        except Skipped as reason:
            result, skipped = f"skipped: {reason}", skipped + 1
        except Exception as error:  # noqa: BLE001
            result, failed = f"FAILED: {type(error).__name__}: {error}", failed + 1
        print(f"{name} ... {result} ({time.monotonic() - begun:.1f} s)", flush=True)
    print(f"deploy checks: {len(CHECKS) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


main()
