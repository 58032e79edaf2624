"""The search for faster schedules: what is tried, where it is measured, and what is kept."""
