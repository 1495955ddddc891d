"""The errors a user of the study can meet; each message names the thing, the value and the remedy."""


class ConfigError(ValueError):
    """A setting is unknown, ill-typed or out of range."""


class DataError(ValueError):
    """Data handed in or read back from disk does not have the promised form."""


class RunError(RuntimeError):
    """A run cannot start or go on."""
