"""The core in virtual time: `python -m ipmp_agent.simulate` replays a fault script, or a recording of an agent."""
