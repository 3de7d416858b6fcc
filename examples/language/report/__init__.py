"""The methods side by side, and the page."""
