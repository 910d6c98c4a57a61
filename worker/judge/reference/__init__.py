"""The reference: the model as transformers runs it, which every faster device must equal."""
