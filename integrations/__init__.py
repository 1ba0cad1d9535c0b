"""The avatar inside other people's frameworks for voice agents, each an extra of its own: LiveKit and Pipecat."""
