"""Parts that several training methods share."""
