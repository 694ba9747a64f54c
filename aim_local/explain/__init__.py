"""Pictures of a trace: which patches a merged token covers, which tokens survive into a layer, how they were ranked."""
