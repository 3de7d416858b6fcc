"""StochCA itself: a student whose blocks now and then attend to a frozen teacher."""
