"""How OpenAI's API says no."""

from __future__ import annotations

from luodi.serve.refusal import Refusal, text


def told(refusal: Refusal) -> bytes:
    """{"error": {"message", "type", "param", "code"}}."""
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    message = refusal.message
    if refusal.expected:
        message = f"{message}; expected: {refusal.expected}"
    if "id" in refusal.extra:
        message = f"{message} ({refusal.extra['id']})"
    error = {"message": message, "type": kind, "param": refusal.column, "code": refusal.extra.get("code")}
    return text({"error": error})
