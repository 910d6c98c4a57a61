"""Bounds of Event v1, each with its reason. Counts of characters are Unicode code points."""

from __future__ import annotations

from typing import Final

MAX_ID_CHARS: Final = 256
"""Ids become record keys, headers and labels on consoles; a UUID has 36, a URN rarely 200."""

MAX_TENANT_CHARS: Final = 256
"""As an id."""

MAX_LOCALE_CHARS: Final = 64
"""BCP 47 asks for room for 35 characters; private-use parts get some more."""

MAX_TIME_CHARS: Final = 64
"""RFC 3339 with nanoseconds and an offset has 35."""

MAX_MESSAGES: Final = 1_000
"""Far more turns than any context of 131,072 tokens folds in."""

MAX_TEXT_CHARS: Final = 1_000_000
"""Longer text outgrows the largest context the model has (131,072 tokens) in every language."""

MAX_IMAGES: Final = 1_000
"""References of one event over all messages; the judged turn has a lower, configured bound."""

MAX_URI_CHARS: Final = 4_096
"""An object key has at most 1,024 bytes, which percent-encoding triples."""

MAX_VERSION_ID_CHARS: Final = 1_024
"""S3's own bound on version ids, in bytes."""

MAX_SHA256_CHARS: Final = 256
"""A digest has 64; whether it is one is checked where the image is fetched."""

MAX_METADATA_BYTES: Final = 64 * 1024
"""Encoded; metadata is carried into quarantine beside the event and must not drive its size."""

MAX_DEPTH: Final = 64
"""Nesting of one record. The contract itself needs 6; the rest is room for metadata."""

MAX_VALUES: Final = 50_000
"""Members and items of one record: everything the contract allows has some 40,000, most of them in
metadata. They are parsed at one go, and hold up everything else meanwhile (some 40 ms)."""
