"""The drill of high availability, one line per check; called by scripts/test-ha."""

import pathlib
import sys
import time

# Servers, proxies and the list of outcomes are those of the checks of deploy/.
sys.path.append(str(pathlib.Path(__file__).parent.parent / "deploy_checks"))

from harness import ARGS, FOLDER, Skipped  # noqa: E402

import drill  # noqa: E402


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    counts = {"passed": 0, "failed": 0, "skipped": 0}

    def report(name, function):
        begun = time.monotonic()
        try:
            result, outcome = "ok" + (f": {said}" if (said := function()) else ""), "passed"
        except Skipped as reason:
            result, outcome = f"skipped: {reason}", "skipped"
        except Exception as error:  # noqa: BLE001
            result, outcome = f"FAILED: {type(error).__name__}: {error}", "failed"
        counts[outcome] += 1
        print(f"{name} ... {result} ({time.monotonic() - begun:.1f} s)", flush=True)
        return outcome == "passed"

    for name in ["haproxy"] if ARGS.quick else ["haproxy", "nginx"]:
        drill.run(name, report, rounds=1 if ARGS.quick else 3)
    print("high availability: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    sys.exit(1 if counts["failed"] else 0)


main()
