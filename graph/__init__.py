"""When and where: configuration, links, workers, statistics. The stages do the rest."""
