"""Images: fetched from an object store within limits, checked, decoded, cached."""
