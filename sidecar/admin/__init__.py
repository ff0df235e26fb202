"""The operator's interface, served by the agent."""
