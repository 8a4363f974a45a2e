"""The audit log: what happened, provable later, without what was asked.

The modules here are its pure core. docs/audit-format.md holds the format that they write, precisely
enough for somebody else's verifier; scripts/verify_audit.py is one, and shares no code with them.
"""
