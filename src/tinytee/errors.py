"""The exceptions that tinytee raises on purpose. This module imports nothing."""


class TinyteeError(Exception):
    """Base of every error that tinytee raises on purpose."""


class UnsupportedModelError(TinyteeError):
    """The model asks for something that tinytee does not run; the message lists every such place."""


class BudgetError(TinyteeError):
    """The network does not fit the secure memory that was offered.

    Attributes:
        needed_bytes: the least secure memory that would do.
        available_bytes: what was offered.
    """

    def __init__(self, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(
            f"the network needs at least {needed_bytes:,} bytes of secure memory, {available_bytes:,} were offered;"
            f" compile with --memory {-(-needed_bytes // 1024)}KiB or more"
        )
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes


class BundleError(TinyteeError):
    """A bundle is truncated, foreign, malformed, or of a version that this tinytee does not read."""


class AuthenticationError(TinyteeError):
    """Something sealed did not authenticate: the key is not its key, or it was changed."""


class EngineError(TinyteeError):
    """The trusted core refused to go on, or the port could not give it what it needs."""
