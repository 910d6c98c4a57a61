"""``python -m worker`` is ``moderation-worker``."""

from worker.cli import main

main()
