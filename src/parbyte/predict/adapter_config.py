"""Settings of the stages that adapt the network itself: they learn from scored text."""

from collections.abc import Mapping

NETWORK_STAGES: Mapping[str, type] = {}
"""Kind -> settings of stages that need the network: one of them may stand lowest in the stack."""
