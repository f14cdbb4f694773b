"""Networks that change their shape and not what they compute; one file is one concern."""
