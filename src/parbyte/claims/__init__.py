"""Published scorers that are no codes, rebuilt as specimens for the audit: nats, and no `step`."""
