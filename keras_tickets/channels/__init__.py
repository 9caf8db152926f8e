"""Physical removal of channels that compute nothing."""
