"""The ways to a visitor: WebRTC and WebSocket."""
