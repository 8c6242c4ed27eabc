"""Beyond one process: predictors that travel, runs of predictions and fits on Ray or on several devices."""
