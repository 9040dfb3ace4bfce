"""The configuration of a run: what may be set, how it is read, and what is refused."""

from hushtune.config.checks import (
    check,
    check_training,
    check_units,
    default_delta,
    require,
    resolved_delta,
)
from hushtune.config.reading import from_values, load
from hushtune.config.settings import (
    ADAPTERS,
    VIRTUAL,
    Config,
    ConfigError,
    DataConfig,
    LoraConfig,
    MethodConfig,
    ModelConfig,
    PrivacyConfig,
    TaskConfig,
    differences,
)
from hushtune.config.sources import DataSet, data_set, same_data

__all__ = [
    "ADAPTERS",
    "VIRTUAL",
    "Config",
    "ConfigError",
    "DataConfig",
    "DataSet",
    "LoraConfig",
    "MethodConfig",
    "ModelConfig",
    "PrivacyConfig",
    "TaskConfig",
    "check",
    "check_training",
    "check_units",
    "data_set",
    "default_delta",
    "differences",
    "from_values",
    "load",
    "require",
    "resolved_delta",
    "same_data",
]
