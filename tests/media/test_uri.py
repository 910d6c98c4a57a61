"""References: only s3://bucket/key within the allow-lists ever reaches a store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.codes import UndecidedReason
from worker.contracts.event import ImageRef
from worker.errors import Undecided
from worker.media.base import ObjectKey
from worker.media.uri import parse_uri

DIGEST = "ab" * 32
REFUSALS = {UndecidedReason.IMAGE_URI_INVALID, UndecidedReason.IMAGE_NOT_ALLOWED}


def refused(ref: ImageRef, *prefixes: str) -> Undecided:
    with pytest.raises(Undecided) as error:
        parse_uri(ref, ("images",), prefixes)
    return error.value


@pytest.mark.parametrize(
    "key",
    [
        "a.png",
        "a/b/c.png",
        "100%.png",
        "a%20b.png",
        "what?.png",
        "a#b.png",
        "..a/b..c/...png",
        "日本語/👩‍👩‍👧.webp",
        "x" * 1024,
        "é" * 512,
    ],
)
def test_a_key_is_kept_as_it_is_written(key: str) -> None:
    parsed = parse_uri(ImageRef(uri=f"s3://images/{key}"), ("images",), ())
    assert parsed == ObjectKey(bucket="images", key=key)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "s3",
        "s3:",
        "s3://",
        "s3:///a.png",
        "s3://images",
        "s3://images/",
        "s3:/images/a.png",
        "S3://images/a.png",
        " s3://images/a.png",
        "http://images/a.png",
        "https://images.s3.amazonaws.com/a.png",
        "file:///etc/passwd",
        "gs://images/a.png",
        "//images/a.png",
        "s3://user@images/a.png",
        "s3://images:80/a.png",
        "s3://im ages/a.png",
        "s3://imag\u00e9s/a.png",
        "s3://../a.png",
        "s3://images/..",
        "s3://images/../other/a.png",
        "s3://images/a/../../b.png",
        "s3://images/a/./b.png",
        "s3://images/a\\..\\b.png",
        "s3://images/%2e%2e/b.png",
        "s3://images/%2E./b.png",
        "s3://images/a%2f..%2fb.png",
        "s3://images/%252e%252e/b.png",
        "s3://images/%25252525252525252525252e/b.png",
        "s3://images/a%00.png",
        "s3://images/a%0d%0aHost:evil.png",
        "s3://images/a\x00.png",
        "s3://images/a\r\nb.png",
        "s3://images/a\x7f.png",
        "s3://images/a\u0085b.png",
        "s3://images/a\u2028b.png",
        "s3://images/a\ud800b.png",
        "s3://images/a.png?X-Amz-Signature=abc&X-Amz-Expires=60",
        "s3://images/a.png?AWSAccessKeyId=AK&Signature=x",
        "s3://images/a.png?versionId=abc",
        "s3://images/" + "x" * 1025,
        "s3://images/" + "é" * 513,
    ],
)
def test_any_other_shape_is_invalid_and_not_quoted(uri: str) -> None:
    error = refused(ImageRef(uri=uri))
    assert error.reason is UndecidedReason.IMAGE_URI_INVALID
    assert error.field == "uri"
    assert len(uri) < 8 or uri not in str(error)


@pytest.mark.parametrize("bucket", ["other", "Images", "images.", "images-2", "image", "169.254.1"])
def test_a_bucket_outside_the_list_is_not_allowed(bucket: str) -> None:
    error = refused(ImageRef(uri=f"s3://{bucket}/a.png"))
    assert error.reason is UndecidedReason.IMAGE_NOT_ALLOWED


def test_no_bucket_is_allowed_unless_listed() -> None:
    with pytest.raises(Undecided) as error:
        parse_uri(ImageRef(uri="s3://images/a.png"), (), ())
    assert error.value.reason is UndecidedReason.IMAGE_NOT_ALLOWED


def test_a_key_outside_the_prefixes_is_not_allowed() -> None:
    assert parse_uri(ImageRef(uri="s3://images/public/a"), ("images",), ("x/", "public/"))
    for key in ("private/a", "publi", "Public/a", "/public/a"):
        error = refused(ImageRef(uri=f"s3://images/{key}"), "x/", "public/")
        assert error.reason is UndecidedReason.IMAGE_NOT_ALLOWED


def test_pins_are_kept_and_digests_compare_in_lower_case() -> None:
    ref = ImageRef(uri="s3://images/a", version_id="v1.x_-", sha256=DIGEST.upper())
    parsed = parse_uri(ref, ("images",), ())
    assert (parsed.version_id, parsed.sha256) == ("v1.x_-", DIGEST)


@pytest.mark.parametrize("digest", ["", "ab", DIGEST + "a", DIGEST[:-1] + "g", " " + DIGEST[1:]])
def test_a_malformed_digest_is_invalid_and_never_ignored(digest: str) -> None:
    error = refused(ImageRef(uri="s3://images/a", sha256=digest))
    assert (error.reason, error.field) == (UndecidedReason.IMAGE_URI_INVALID, "sha256")


@pytest.mark.parametrize("version", ["", "v" * 1025, "a\nb", "\ud800"])
def test_a_malformed_version_is_invalid_and_never_ignored(version: str) -> None:
    error = refused(ImageRef(uri="s3://images/a", version_id=version))
    assert (error.reason, error.field) == (UndecidedReason.IMAGE_URI_INVALID, "version_id")


@given(st.text(max_size=60), st.text(max_size=20))
def test_whatever_is_written_a_parsed_key_is_within_the_lists(text: str, bucket: str) -> None:
    """Never an exception other than ours, never a bucket or prefix outside the lists."""
    for uri in (text, f"s3://{bucket}/{text}", f"s3://images/{text}", f"s3://images/p/{text}"):
        try:
            parsed = parse_uri(ImageRef(uri=uri), ("images",), ("p/",))
        except Undecided as error:
            assert error.reason in REFUSALS  # noqa: PT017 - both ends are allowed
        else:
            assert parsed.bucket == "images"
            assert parsed.key.startswith("p/")
            assert ".." not in parsed.key.split("/")
            assert uri == f"s3://images/{parsed.key}"
