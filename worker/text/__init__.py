"""What a person reads: text as it looks, and control strings that must mean nothing inside it.

The lowest room but contracts: it knows characters, and neither policies, lists nor models. The
judge's prompt and the prefilter read the same text through it.
"""
