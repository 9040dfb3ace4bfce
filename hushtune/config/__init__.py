"""The configuration of a run: what may be set, how it is read, and what is refused."""

from hushtune.config.checks import (
    check,
    check_training,
    check_units,
    default_delta,
    require,
    same_data,
)
from hushtune.config.reading import from_values, load
from hushtune.config.settings import (
    ADAPTERS,
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

__all__ = [
    "ADAPTERS",
    "Config",
    "ConfigError",
    "DataConfig",
    "LoraConfig",
    "MethodConfig",
    "ModelConfig",
    "PrivacyConfig",
    "TaskConfig",
    "check",
    "check_training",
    "check_units",
    "default_delta",
    "differences",
    "from_values",
    "load",
    "require",
    "same_data",
]
