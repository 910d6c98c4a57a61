"""What an S3 error means: this object's fault, the store's, or the configuration's.

Codes: Amazon S3 API reference, "Error responses"; the same codes come from compatible stores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from botocore import exceptions as botocore
from urllib3.exceptions import HTTPError

from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided

MISSING = frozenset(
    {"NoSuchKey", "NoSuchVersion", "NotFound", "404", "MethodNotAllowed", "KeyTooLongError"}
)
"""Includes a delete marker, which S3 answers with MethodNotAllowed when its version is named."""

CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "RequestTimeTooSkewed",
        "AccountProblem",
        "NotSignedUp",
        "InvalidSecurity",
        "AuthorizationHeaderMalformed",
        "MissingSecurityHeader",
    }
)
"""403s (and 400s) that every object would get: the worker's credentials, not the object."""

WRONG_PLACE = frozenset(
    {"NoSuchBucket", "PermanentRedirect", "IllegalLocationConstraintException", "301"}
)
"""The bucket is not there or lies in another region: configuration, not the object."""

TRANSIENT = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "RequestTimeout",
        "RequestTimeoutException",
        "InternalError",
        "ServiceUnavailable",
        "OperationAborted",
        "BandwidthLimitExceeded",
    }
)

_CREDENTIAL_ERRORS: tuple[type[Exception], ...] = (
    botocore.NoCredentialsError,
    botocore.PartialCredentialsError,
    botocore.CredentialRetrievalError,
    botocore.TokenRetrievalError,
    botocore.SSOError,
    botocore.ProfileNotFound,
)
_SETTING_ERRORS: tuple[type[Exception], ...] = (
    *_CREDENTIAL_ERRORS,
    botocore.NoRegionError,
    botocore.InvalidRegionError,
    botocore.UnknownEndpointError,
)


def translate(error: Exception) -> Undecided | DependencyUnavailable:
    """Blame the object only for what the store says about this object.

    Anything that would hit every object (network, credentials, region, a bucket that is gone) and
    anything not understood is the store's: it is retried, and nothing is called undecided for it.
    """
    if isinstance(error, botocore.ClientError):
        return _answer(error.response)
    if isinstance(error, botocore.ParamValidationError):
        return Undecided(
            UndecidedReason.IMAGE_URI_INVALID, field="uri", detail="refused by the S3 client"
        )
    return DependencyUnavailable("store", type(error).__name__)


def configuration(error: Exception) -> ConfigurationError | None:
    """The same error seen at start: what to change, or None where the settings are not at fault."""
    if isinstance(error, _CREDENTIAL_ERRORS):
        return ConfigurationError(
            f"store: no usable S3 credentials ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile, or a role"
        )
    if isinstance(error, _SETTING_ERRORS):
        return ConfigurationError(
            f"store: {type(error).__name__}; set store.region and store.endpoint_url"
        )
    if isinstance(error, botocore.ClientError):
        code, _ = _code(error.response)
        if code in CREDENTIALS:
            return ConfigurationError(
                f"store: S3 refuses the credentials ({code}); check the key pair, the clock and "
                "store.region"
            )
        if code in WRONG_PLACE:
            return ConfigurationError(
                f"store: {code}; check store.buckets, store.region and store.endpoint_url"
            )
    return None


def is_store_error(error: Exception) -> bool:
    """Whether ``error`` came from S3 or the way to it, rather than from a mistake in this code."""
    return isinstance(error, (botocore.BotoCoreError, botocore.ClientError, HTTPError, OSError))


def _answer(response: Mapping[str, Any]) -> Undecided | DependencyUnavailable:
    code, status = _code(response)
    if code in CREDENTIALS or code in WRONG_PLACE or code in TRANSIENT:
        return DependencyUnavailable("store", code)
    if status >= 500 or status in (408, 429) or 300 <= status < 400:
        return DependencyUnavailable("store", f"{code} ({status})")
    if code in MISSING or status == 404:
        return Undecided(UndecidedReason.IMAGE_MISSING, field="uri", detail=code)
    if code == "InvalidArgument":
        # With a checked bucket and key, the version id is the one argument left.
        return Undecided(UndecidedReason.IMAGE_MISSING, field="version_id", detail=code)
    # AccessDenied, InvalidObjectState (archived), KMS.*, and every other refusal of this object.
    return Undecided(UndecidedReason.IMAGE_FORBIDDEN, field="uri", detail=code)


def _code(response: Mapping[str, Any]) -> tuple[str, int]:
    # The code is a server's text: reduced to a token before it reaches a verdict or a log.
    code = re.sub(r"[^A-Za-z0-9.]", "", str(response.get("Error", {}).get("Code", "")))[:64]
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code or "unknown", int(status or 0)
