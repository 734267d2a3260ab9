"""Published scorers that are no codes, rebuilt as specimens for the audit: nats, and no `step`.

Their numbered cards are in docs/claims.md.
"""
