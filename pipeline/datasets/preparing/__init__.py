"""What the stage prepare makes of a source: images stored once, equal ones found, splits, a manifest."""
