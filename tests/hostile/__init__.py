"""Input made to do harm: each kind is refused with a clear error, in bounded time and memory."""
