"""Images, from any file to the prepared table with its splits."""
