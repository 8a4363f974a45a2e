"""The gateway's own verifier: reads every log once, in order, and keeps no more than a block of it.

`scripts/verify_audit.py` is its counterpart for an auditor: it shares no code with this one and
must come to the same findings. What each means is told in docs/audit-format.md.
"""
