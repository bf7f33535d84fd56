"""Sessions that record what each node takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from dnnsplit_onnx.graph.modelfile import open_model
from dnnsplit_onnx.runtime.placement import end_record
from dnnsplit_onnx.runtime.provider import runtime
from dnnsplit_onnx.runtime.sessions import (
    WEIGHTS_FOLDER,
    Session,
    SessionOptions,
    create_session,
    session_settings,
)


class TracedSession(Session):
    """A session that records what each node takes.

    Attributes:
        optimized: The graph that really runs, its weights left out of sight: nodes, and the
            values between them.
    """

    def __init__(self, session: Any, label: str, provider: str, optimized: onnx.GraphProto) -> None:
        super().__init__(session, label, provider)
        self.optimized = optimized

    def finish(self) -> list[dict[str, Any]]:
        """Ends the record and returns its events, in onnxruntime's trace format."""
        return end_record(self._session)


def open_traced(
    proto: onnx.ModelProto, folder: Path, options: SessionOptions, scratch: Path, *, label: str
) -> TracedSession:
    """Opens a model so that every run records what each node takes.

    Args:
        proto: The model, its large weights in files of `folder`.
        folder: Where these files are.
        options: How to run it.
        scratch: A folder for onnxruntime's records.
        label: What errors call it.

    Raises:
        ModelError: onnxruntime cannot load it.
        MissingExtraError: There is no onnxruntime, or not one with this provider.
    """
    settings = session_settings(runtime(), options)
    settings.enable_profiling = True
    settings.profile_file_prefix = str(scratch / "trace")
    optimized = scratch / "optimized.onnx"
    settings.optimized_model_filepath = str(optimized)
    settings.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", "optimized.data"
    )
    settings.add_session_config_entry(WEIGHTS_FOLDER, str(folder.resolve()))
    session = create_session(proto.SerializeToString(), settings, options, label)
    return TracedSession(session, label, options.provider, open_model(optimized).proto.graph)
