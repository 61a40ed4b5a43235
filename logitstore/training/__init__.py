"""Training: one loop with checkpoints and several processes, which knows neither stores nor what is learnt."""
