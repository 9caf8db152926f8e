"""What a ticket is and costs, and whether it is a winning one."""
