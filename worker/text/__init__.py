"""What a person reads: characters, and text as it looks.

It knows neither policies, lists nor models: the judge's prompt and the prefilter read through it.
"""
