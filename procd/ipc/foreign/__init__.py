"""What other programs put into a message, as pure functions: bytes to values and back.

No descriptor, no clock and no process in any of these rooms.
"""
