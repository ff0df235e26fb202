"""Arguments to the agent."""
