"""A simulated inference runtime on a real socket: `autoscaler.sim`'s batching, OpenAI's API, vLLM's metrics."""
