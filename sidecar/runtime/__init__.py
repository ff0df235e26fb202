"""All the waiting of the data path: sockets, dialling, timers, apply, drain."""
