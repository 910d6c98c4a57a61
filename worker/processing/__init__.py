"""One record, and one event, through the rooms."""
