"""What HTTP needs around the channels: origins, rates, compression, and the connection itself."""
