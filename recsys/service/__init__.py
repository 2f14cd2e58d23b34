"""The service: answers over HTTP from the bundle that is served, and from the candidate table."""
