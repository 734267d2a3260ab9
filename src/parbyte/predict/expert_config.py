"""Settings of the stages that take rows and give rows: counts, experts, mixing."""

from collections.abc import Mapping

ROW_STAGES: Mapping[str, type] = {}
"""Kind -> settings of stages that can stand on any predictor."""
