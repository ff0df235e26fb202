"""The forwarding engine: exchanges, connections, pools; by tables it is given, without waiting."""
