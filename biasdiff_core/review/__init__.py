"""What people decided, and what follows from it: decisions, removal sets, estimates."""
