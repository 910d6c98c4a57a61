#!/usr/bin/env python3
"""Asks the worker in this container for a page; exits 0 where the answer is yes.

``moderation-worker-probe /readyz`` wants status 200; with ``model`` after it, only that one check
of the page has to hold. The port is MODERATION_WEB__PORT, or 6066. A worker that listens on one
family of addresses alone is asked there: IPv4 first, then IPv6.
"""

import http.client
import json
import os
import sys


def ask(port: int, page: str) -> tuple[int, bytes]:
    """Status and body of the page.

    Raises:
        OSError, http.client.HTTPException: nobody answers, on either loopback address.
    """
    refused: OSError = OSError("no loopback address")
    for host in ("127.0.0.1", "::1"):
        connection = http.client.HTTPConnection(host, port, timeout=4)
        try:
            connection.connect()
        except ConnectionRefusedError as error:
            refused = error
            continue
        connection.request("GET", page)
        response = connection.getresponse()
        return response.status, response.read()
    raise refused


def main(page: str = "/healthz", check: str = "") -> int:
    """Exit status of the probe: 0 for yes, 1 for everything else; prints the page."""
    port = int(os.environ.get("MODERATION_WEB__PORT", "6066"))
    try:
        status, body = ask(port, page)
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"no answer on port {port}: {error}\n")
        return 1
    sys.stdout.write(body[:2000].decode("utf-8", "replace") + "\n")
    if not check:
        return 0 if status == 200 else 1
    try:
        return 0 if json.loads(body)["checks"][check] is True else 1
    except (ValueError, KeyError, TypeError):
        sys.stdout.write(f"{page} has no check named {check}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
