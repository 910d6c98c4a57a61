#!/usr/bin/env python3
"""Asks the worker in this container for a page; exits 0 where the answer is 200.

``moderation-worker-probe /readyz``; the port is MODERATION_WEB__PORT, or 6066.
"""

import http.client
import os
import sys


def main() -> int:
    """Exit status of the probe: 0 for 200, 1 for everything else."""
    port = int(os.environ.get("MODERATION_WEB__PORT", "6066"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", sys.argv[1] if len(sys.argv) > 1 else "/healthz")
        response = connection.getresponse()
        sys.stdout.write(response.read(2000).decode("utf-8", "replace") + "\n")
    except OSError as error:
        sys.stdout.write(f"no answer on port {port}: {error}\n")
        return 1
    return 0 if response.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
