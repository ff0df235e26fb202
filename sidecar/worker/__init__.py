"""The child process: messages in, compile, swap, report."""
