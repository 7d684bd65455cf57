"""What the services have in common: wire formats, the Kafka client, the stage loop and the frame of a service."""
