"""Fitting many detectors to find out which is best: the settings for one data set, the figures over many."""
