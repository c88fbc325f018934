"""The only code of the agent that talks to the API server."""
