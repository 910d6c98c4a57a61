"""The judge: one context of prompt, image and response in, labels, scores and reasons out."""
