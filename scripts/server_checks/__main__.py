"""Checks of a running exsa-server, one line each; called by scripts/test-server."""

import importlib
import importlib.util
import os
import pathlib
import sys
import time

from harness import ARGS, CHECKS, LIBRARIES, Server

# Every module beside this one adds its checks.
for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
    if path.stem not in ("__main__", "harness"):
        importlib.import_module(path.stem)


def main():
    os.makedirs("target/test-server", exist_ok=True)
    server, failed, ran, skipped = Server(), 0, 0, 0
    for name, quick, function in CHECKS:
        if ARGS.quick and not quick:
            continue
        library = name.split(":")[0]
        if library in LIBRARIES and importlib.util.find_spec(library) is None:
            skipped += 1
            continue
        begun = time.monotonic()
        try:
            function(server)
            result = "ok"
        except Exception as error:  # noqa: BLE001
            result, failed = f"FAILED: {type(error).__name__}: {error}", failed + 1
        ran += 1
        print(f"{name} ... {result} ({time.monotonic() - begun:.1f} s)", flush=True)
    status = server.stop()
    print(f"server checks: {ran - failed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or status != 0 else 0)


main()
