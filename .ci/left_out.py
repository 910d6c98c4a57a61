"""Fail when a test was skipped although this machine has what it needs.

Usage: left_out.py JUNIT_XML. A skip is allowed only for a tool that is really not here.
"""

from __future__ import annotations

import shutil
import sys
import xml.etree.ElementTree as ElementTree

# The words that a skip reason names its missing tool with, and the command that proves it missing.
TOOLS = {"java": "java", "maven": "mvn", "go": "go", "node": "node", "npm": "npm"}


def main(report: str) -> int:
    """Print every skip that has no excuse; 1 if there is one."""
    unexcused = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own file
        skipped = case.find("skipped")
        if skipped is None:
            continue
        reason = skipped.get("message", "")
        missing = [name for name in TOOLS if name in reason.casefold().split()]
        if not any(shutil.which(TOOLS[name]) is None for name in missing):
            unexcused.append(f"{case.get('classname')}::{case.get('name')}: {reason}")
    for line in unexcused:
        print(f"skipped although this machine could run it: {line}")
    return 1 if unexcused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
