"""From conversations to tokens."""
