"""Every stable code the worker publishes: one enumeration per place a code can appear.

Codes are part of contract v1: they appear in verdicts, dead letters, metrics and docs/contracts.md,
and are only ever added to.
"""

from enum import StrEnum


class DeadLetterCode(StrEnum):
    """Why a record could not be read as an event at all."""

    TOMBSTONE = "tombstone"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    SCHEMA_REGISTRY_FRAMED = "schema_registry_framed"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    DUPLICATE_KEY = "duplicate_key"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    INVALID_FIELD = "invalid_field"
    UNSUPPORTED_CLOUDEVENT = "unsupported_cloudevent"


class UndecidedReason(StrEnum):
    """Why an event with a known id has no safe/unsafe outcome. Undecided is never safe."""

    INVALID_FIELD = "invalid_field"
    NO_USER_TURN = "no_user_turn"
    EMPTY_MESSAGE = "empty_message"
    TOO_MANY_IMAGES = "too_many_images"
    IMAGE_URI_INVALID = "image_uri_invalid"
    IMAGE_NOT_ALLOWED = "image_not_allowed"
    IMAGE_MISSING = "image_missing"
    IMAGE_FORBIDDEN = "image_forbidden"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_DIGEST_MISMATCH = "image_digest_mismatch"
    IMAGE_FORMAT = "image_format"
    IMAGE_CORRUPT = "image_corrupt"
    IMAGE_TIMEOUT = "image_timeout"
    CONTEXT_TOO_LONG = "context_too_long"
    MALFORMED_OUTPUT = "malformed_output"
    NOT_FINITE = "not_finite"
    OUT_OF_MEMORY = "out_of_memory"
    JUDGE_TIMEOUT = "judge_timeout"
    JUDGE_REJECTED = "judge_rejected"
    POISON = "poison"
    INTERNAL_ERROR = "internal_error"


class SkippedReasoning(StrEnum):
    """Why a wanted reasoning trace is not in the verdict, or did not count."""

    DEADLINE = "deadline"
    OVERLOAD = "overload"
    EMPTY = "empty"
    UNCLOSED = "unclosed"
    CONTRADICTORY = "contradictory"
    FAILED = "failed"
