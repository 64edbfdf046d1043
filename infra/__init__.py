"""What stands below the product: storage ports with their adapters, outgoing HTTP, the model, providers."""
