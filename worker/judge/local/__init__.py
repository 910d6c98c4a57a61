"""The judge of this machine: prompts, scheduling, scores and traces over one device."""
