"""Where, and when, two cameras see the same thing."""
