"""From judgements to what is done: pure values, no I/O."""
