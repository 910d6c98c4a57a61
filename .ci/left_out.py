"""Fail when a test was skipped although this machine has what it needs.

Usage: left_out.py JUNIT_XML. A skip is allowed only for a tool that is really not here.
"""

from __future__ import annotations

import ctypes.util
import shutil
import sys
import xml.etree.ElementTree as ElementTree

# The words that a skip reason names its missing tool with, and the command that proves it missing.
TOOLS = {
    "java": "java",
    "maven": "mvn",
    "go": "go",
    "node": "node",
    "npm": "npm",
    "chromium": "chromium",
}
# The same for shared libraries: the package that brings one, and its name.
LIBRARIES = {"libgl1": "GL", "libegl1": "EGL"}


def missing(words: list[str]) -> bool:
    """Whether something that a skip reason names is really not here."""
    tools = [TOOLS[word] for word in words if word in TOOLS]
    libraries = [LIBRARIES[word] for word in words if word in LIBRARIES]
    return any(shutil.which(tool) is None for tool in tools) or any(
        ctypes.util.find_library(library) is None for library in libraries
    )


def main(report: str) -> int:
    """Print every skip that has no excuse; 1 if there is one."""
    unexcused = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own file
        skipped = case.find("skipped")
        if skipped is None:
            continue
        reason = skipped.get("message", "")
        if not missing(reason.casefold().split()):
            unexcused.append(f"{case.get('classname')}::{case.get('name')}: {reason}")
    for line in unexcused:
        print(f"skipped although this machine could run it: {line}")
    return 1 if unexcused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
