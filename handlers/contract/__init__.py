"""The contract at work: from openapi.yaml to a running operation."""
