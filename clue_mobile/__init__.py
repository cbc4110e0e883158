"""clue-mobile: export a trained image classifier together with the means to forget a class on the device."""

__version__ = "0.1.0"
