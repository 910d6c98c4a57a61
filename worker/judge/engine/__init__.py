"""The engine: one packed forward for many policies, nothing computed twice. See docs/engine.md."""
