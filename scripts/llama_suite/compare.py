"""Compares results of pytest with a list of tests that are expected to fail.

Usage: compare.py RESULTS.xml EXPECTED.tsv

A line of the list is the name of a test, without the parameters in brackets where all of them fail, a tab, and the
reason. Exits with 1 if another test fails, or if a listed one passes, so that the list stays true. Tests of the kind
"own words" may pass: their outcome is chance.
"""

import sys
from xml.etree import ElementTree


def main(results, expected):
    reasons = {}
    with open(expected, encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                name, reason = line.rstrip("\n").split("\t")
                assert reason and name not in reasons, f"{name}: no reason, or listed twice"
                reasons[name] = reason
    failed, passed, used, unexpected = [], [], set(), []
    for case in ElementTree.parse(results).iter("testcase"):
        # The name of the module without the folder.
        name = case.get("classname").rsplit(".", 1)[-1] + "::" + case.get("name")
        plain = name.split("[")[0]
        listed = next((entry for entry in (name, plain) if entry in reasons), None)
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
            if listed is None:
                unexpected.append(name)
            used.add(listed)
        elif case.find("skipped") is None:
            passed.append(name)
            if listed == name and not reasons[name].startswith("own words"):
                unexpected.append(name + " (listed, but it passes)")
    for name in passed:
        plain = name.split("[")[0]
        if plain in reasons and plain not in used and not reasons[plain].startswith("own words"):
            unexpected.append(name + " (listed, but it passes)")
    kinds = sorted({reason.split(":")[0] for reason in reasons.values()})
    for kind in kinds:
        count = sum(1 for name in failed if reason_of(name, reasons).split(":")[0] == kind)
        print(f"expected to fail, {kind}: {count}")
    for name in unexpected:
        print(f"UNEXPECTED: {name}")
    print(f"llama-server's suite: {len(passed)} passed, {len(failed)} failed, {len(unexpected)} unexpected")
    sys.exit(1 if unexpected or not passed else 0)


def reason_of(name, reasons):
    return reasons.get(name) or reasons.get(name.split("[")[0]) or ""


main(*sys.argv[1:])
