"""What tests share: services, databases, calls, and bytes on a socket."""
