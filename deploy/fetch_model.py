#!/usr/bin/env python3
"""Fetches a checkpoint from a model hub, or from S3: the chart's ``model.source: hub`` and ``s3``.

``moderation-worker-fetch-model hub OWNER/NAME COMMIT`` fills the cache under ``HF_HOME``, from
which the worker then starts offline. ``HF_TOKEN``, ``HF_ENDPOINT`` (a mirror) and the
environment's proxies count. (``hf download`` does the same, but ends with exit code 1 after a
download that went well where its two command-line libraries do not fit each other.)

``moderation-worker-fetch-model s3 s3://bucket/prefix DIRECTORY`` fetches the files that
``MODEL_SHA256SUMS`` lists (as ``sha256sum`` prints them), and nothing else. The directory appears
when all of them are right; one that is there and right is kept, so that a claim is filled once.
Credentials, region and endpoint are those of the AWS SDK: keys, or the service account's identity;
``AWS_ENDPOINT_URL_S3`` names another store, ``HTTPS_PROXY`` a proxy.

Exit codes: 0 fetched, or there already; 1 not fetched, with the reason; 2 wrong use.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

TRIES = 8
BLOCK = 8 * 1024 * 1024


class Refused(Exception):
    """What was asked for cannot be done; the message names the value to change."""


def wanted(listing: str) -> dict[str, str]:
    """SHA-256 by relative path, of a listing in the format of ``sha256sum``."""
    sums = {}
    for line in filter(None, map(str.strip, listing.splitlines())):
        digest, _, name = line.partition(" ")
        path = PurePosixPath(name.lstrip(" *").removeprefix("./"))
        if len(digest) != 64 or not path.parts or path.is_absolute() or ".." in path.parts:
            raise Refused(f"model.s3.sha256sums: not a line of sha256sum: {line[:80]!r}")
        sums[str(path)] = digest.lower()
    if not sums:
        raise Refused("model.s3.sha256sums is empty: list the files of the checkpoint")
    return sums


def digest_of(file: Path) -> str:
    """SHA-256 of a file, in hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def wrong(directory: Path, sums: dict[str, str]) -> list[str]:
    """Names that are missing in the directory, or differ."""
    return [
        name
        for name, digest in sums.items()
        if not (directory / name).is_file() or digest_of(directory / name) != digest
    ]


def fetch(uri: str, target: Path, sums: dict[str, str]) -> None:
    """Fill ``target`` from ``uri``.

    Raises:
        Refused: a file differs from its digest.
        BotoCoreError, ClientError, OSError: the store, or the disk.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise Refused(f"model.s3.uri: {uri!r} is not s3://bucket/prefix")
    prefix = parts.path.strip("/")
    partial = target.with_name(f"{target.name}.partial")
    config = Config(retries={"max_attempts": TRIES, "mode": "standard"}, connect_timeout=10)
    store = boto3.client("s3", config=config)
    for name in wrong(partial, sums):
        file = partial / name
        file.parent.mkdir(parents=True, exist_ok=True)
        key = f"{prefix}/{name}" if prefix else name
        say(f"fetching s3://{parts.netloc}/{key}")
        store.download_file(parts.netloc, key, str(file))
        if (found := digest_of(file)) != sums[name]:
            file.unlink()
            raise Refused(
                f"s3://{parts.netloc}/{key} has the SHA-256 {found}, model.s3.sha256sums says "
                f"{sums[name]}: the object or the list is not the one that was reviewed"
            )
    if target.exists():
        shutil.rmtree(target)
    partial.replace(target)


def fetch_from_hub(repository: str, commit: str) -> None:
    """Fill the hub's cache.

    Raises:
        HfHubHTTPError, LocalEntryNotFoundError, OSError, httpx.HTTPError: what the hub, or the way
            to it, said.
    """
    from huggingface_hub import snapshot_download  # the S3 way does not need it

    say(f"fetching {repository} at {commit} from {os.environ.get('HF_ENDPOINT', 'the hub')}")
    say(f"{snapshot_download(repository, revision=commit)}: all there")


def fetch_from_s3(uri: str, target: Path) -> None:
    """Fill ``target``, unless it is there and right.

    Raises:
        Refused, BotoCoreError, ClientError, OSError: see ``fetch``.
    """
    sums = wanted(os.environ.get("MODEL_SHA256SUMS", ""))
    if target.is_dir() and not wrong(target, sums):
        say(f"{target} is there and right: {len(sums)} files")
        return
    fetch(uri, target, sums)
    say(f"{target}: {len(sums)} files, all of them as listed")


def say(text: str) -> None:
    """One line of progress, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Exit status; the last line says what is wrong."""
    try:
        match arguments:
            case ["hub", repository, commit]:
                fetch_from_hub(repository, commit)
            case ["s3", uri, target]:
                fetch_from_s3(uri, Path(target))
            case _:
                sys.stderr.write(
                    "usage: hub OWNER/NAME COMMIT, or s3 s3://bucket/prefix DIRECTORY\n"
                )
                return 2
    except Exception as error:  # the last line of an init container is all that anybody reads
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
