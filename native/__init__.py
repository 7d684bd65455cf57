"""The stack on one machine without containers: prerequisites, Kafka, the supervisor and the launcher behind `make`."""
