"""Side by side with the exact answer and with other tools; each module is one command."""
