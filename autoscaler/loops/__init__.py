"""What runs for as long as the process does: shells around the controller's pure parts."""
