"""The remote judge: any OpenAI-compatible server in place of the local engine. No torch here.

::

    request ─► prepare ─► body ─► caller ─► client ─► server
               (defused,   (messages,  (attempts,  (one HTTP    │
                folded)     kwargs)     breaker)    request)    ▼
    judgement ◄───────────── reader ◄─── answer ◄─── tokens with their log-probabilities
"""
